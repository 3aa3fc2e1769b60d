package baseline

import "strings"

// The longest user agent that is looked at, and how many of them are
// remembered: a log has few, and most events bring one seen just before.
const (
	agentLongest = 512
	agentsKnown  = 256
)

// agent is a user agent without its versions.
type agent struct {
	tag  uint32   // of the products named in it, in order
	name [12]byte // of the first one, cut
}

type agents struct {
	raw  [agentsKnown]string
	read [agentsKnown]agent
}

// read returns the agent and whether there is one.
func (c *agents) of(raw string, seed uint64) (agent, bool) {
	if raw == "" {
		return agent{}, false
	}
	if len(raw) > agentLongest {
		return readAgent(raw[:agentLongest], seed), true
	}
	slot := hash(seed, raw) % agentsKnown
	if c.raw[slot] != raw {
		c.raw[slot], c.read[slot] = raw, readAgent(raw, seed)
	}
	return c.read[slot], true
}

// readAgent keeps the names of the products (RFC 9110, section 10.1.5) and drops
// their versions, their comments and all digits, for a new release is no new
// agent: "kubelet/v1.36.3 (linux/amd64) kubernetes/1a2b3c" is "kubelet
// kubernetes", "Boto3/1.34 md/Botocore#1.34" is "Boto md".
func readAgent(raw string, seed uint64) agent {
	var a agent
	h := seed
	named, depth, skip, first := 0, 0, false, true
	for i := range len(raw) {
		c := raw[i]
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth = max(depth-1, 0)
		case depth > 0:
		case c == ' ' || c == '\t':
			first = first && named == 0
			skip = false
			h = step(h, ' ')
		case c == '/' || c == '#':
			skip = true
		case skip || c >= '0' && c <= '9' || c == '.':
		default:
			h = step(h, uint64(c))
			if first && named < len(a.name) {
				a.name[named] = printable(c)
				named++
			}
		}
	}
	a.tag = tag(finish(h))
	return a
}

func printable(c byte) byte {
	if c < 0x21 || c > 0x7e {
		return '?'
	}
	return c
}

func (a agent) String() string { return text(a.name[:]) }

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// shown makes data from outside fit to stand in a sentence: the first word,
// printable, and of 40 characters at the most.
func shown(s string) string {
	s, _, _ = strings.Cut(strings.TrimLeft(s[:min(len(s), 256)], " \t"), " ")
	b := []byte(s[:min(len(s), 40)])
	for i, c := range b {
		b[i] = printable(c)
	}
	return string(b)
}
