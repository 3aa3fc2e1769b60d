package kubernetes

import (
	_ "embed"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"remit"
)

// AgentRule recognises AI agents, model gateways, inference servers and tool
// servers. A workload matches when any one of the rule's lists does.
type AgentRule struct {
	// ID names the rule in the attribute "agent" of what it matches.
	ID    string `json:"id"`
	Title string `json:"title"`

	// Kind is what sort of thing it is: agent, framework, gateway, inference,
	// mcp-server, application or client.
	Kind string `json:"kind"`

	// Provider is the model provider that it uses: "openai"; may be "".
	Provider string `json:"provider,omitempty"`

	// Images are patterns of image names, without registry, tag and digest.
	// Parts between slashes are compared from the end, and * stands for
	// any run of characters within a part: "ollama/ollama", "*langgraph*".
	Images []string `json:"images,omitempty"`

	// Labels are labels or annotations, of the workload or of its pods, as
	// key or key=value; * in the value stands for any run of characters.
	Labels []string `json:"labels,omitempty"`

	// Env are names of environment variables.
	Env []string `json:"env,omitempty"`

	// Resources are custom resources, as kind.group: "Agent.kagent.dev".
	Resources []string `json:"resources,omitempty"`
}

// ParseAgentRules reads rules from YAML: a list under "rules". name is what
// errors call the input; they are [remit.Invalid] and say which rule is wrong.
func ParseAgentRules(name string, r io.Reader) ([]AgentRule, error) {
	const op = "read agent rules"
	data, err := io.ReadAll(io.LimitReader(r, 4<<20))
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s: %w", name, err)
	}
	var file struct {
		Rules []AgentRule `json:"rules"`
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return nil, remit.Errorf(remit.Invalid, op, "%s: %w", name, err)
	}
	seen := map[string]bool{}
	for i, rule := range file.Rules {
		switch {
		case rule.ID == "":
			return nil, remit.Errorf(remit.Invalid, op, "%s: rule %d has no id", name, i+1)
		case seen[rule.ID]:
			return nil, remit.Errorf(remit.Invalid, op, "%s: there are two rules %q", name, rule.ID)
		case len(rule.Images)+len(rule.Labels)+len(rule.Env)+len(rule.Resources) == 0:
			return nil, remit.Errorf(remit.Invalid, op, "%s: rule %q matches nothing: give it images, labels, env or resources", name, rule.ID)
		}
		seen[rule.ID] = true
		for _, pattern := range slices.Concat(rule.Images, rule.Labels) {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, remit.Errorf(remit.Invalid, op, "%s: rule %q: %q is no pattern", name, rule.ID, pattern)
			}
		}
		for _, resource := range rule.Resources {
			if kind, group, ok := strings.Cut(resource, "."); !ok || kind == "" || group == "" {
				return nil, remit.Errorf(remit.Invalid, op, "%s: rule %q: resource %q is not written kind.group", name, rule.ID, resource)
			}
		}
	}
	return file.Rules, nil
}

//go:embed agents.yaml
var builtInAgents string

var builtInAgentRules = sync.OnceValue(func() []AgentRule {
	rules, err := ParseAgentRules("agents.yaml", strings.NewReader(builtInAgents))
	if err != nil {
		panic(err.Error()) // a test reads it
	}
	return rules
})

// agentLabel names an agent on the object itself.
const agentLabel = "remit.dev/agent"

// agentMatcher applies rules, the user's before the built-in ones.
type agentMatcher struct {
	rules []agentRule
	env   map[string][]int // rules by variable
}

type agentRule struct {
	AgentRule
	known  bool
	images [][]string
}

// agentMatch is what the rules say about one workload.
type agentMatch struct {
	rule, kind string
	name       string // as the label says
	known      bool
	providers  string
}

func newAgentMatcher(user []AgentRule) *agentMatcher {
	m := &agentMatcher{env: map[string][]int{}}
	add := func(rules []AgentRule, known bool) {
		for _, rule := range rules {
			r := agentRule{AgentRule: rule, known: known}
			for _, pattern := range rule.Images {
				r.images = append(r.images, strings.Split(strings.ToLower(pattern), "/"))
			}
			for _, name := range rule.Env {
				m.env[name] = append(m.env[name], len(m.rules))
			}
			m.rules = append(m.rules, r)
		}
	}
	add(user, true)
	add(builtInAgentRules(), false)
	return m
}

// match says whether a workload is an agent. The first rule that matches names
// it; every rule that does adds its provider.
func (m *agentMatcher) match(o metav1.Object, podMeta *metav1.ObjectMeta, spec *corev1.PodSpec) agentMatch {
	var out agentMatch
	sets := []map[string]string{o.GetLabels(), o.GetAnnotations(), podMeta.Labels, podMeta.Annotations}
	for _, set := range sets {
		if name := set[agentLabel]; name != "" && !strings.EqualFold(name, "false") {
			out = agentMatch{rule: "label", kind: "agent", name: truncate(name, maxMeaning), known: true}
			break
		}
	}
	if m == nil {
		return out
	}
	var images [][]string
	byEnv := map[int]bool{}
	eachContainer(spec, func(c *corev1.Container) {
		if len(images) < maxMounts {
			images = append(images, imageParts(c.Image))
		}
		for _, env := range c.Env {
			for _, i := range m.env[env.Name] {
				byEnv[i] = true
			}
		}
	})
	var providers []string
	for i := range m.rules {
		rule := &m.rules[i]
		if !byEnv[i] && !rule.matchesImage(images) && !rule.matchesLabel(sets) {
			continue
		}
		if out.rule == "" {
			out.rule, out.kind, out.known = rule.ID, rule.Kind, rule.known
		}
		if rule.Provider != "" {
			providers = appendNew(providers, rule.Provider)
		}
	}
	slices.Sort(providers)
	out.providers = strings.Join(providers, ",")
	return out
}

// imageParts splits an image's name at its slashes, in lower case and without
// tag and digest.
func imageParts(image string) []string {
	if len(image) > maxLabel {
		image = image[:maxLabel]
	}
	image, _, _ = strings.Cut(strings.ToLower(image), "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return strings.Split(image, "/")
}

func (r *agentRule) matchesImage(images [][]string) bool {
	for _, pattern := range r.images {
		for _, image := range images {
			if len(image) < len(pattern) {
				continue
			}
			tail := image[len(image)-len(pattern):]
			all := true
			for i, part := range pattern {
				ok, err := path.Match(part, tail[i])
				if err != nil || !ok {
					all = false
					break
				}
			}
			if all {
				return true
			}
		}
	}
	return false
}

func (r *agentRule) matchesLabel(sets []map[string]string) bool {
	for _, label := range r.Labels {
		key, want, hasValue := strings.Cut(label, "=")
		for _, set := range sets {
			value, ok := set[key]
			if !ok {
				continue
			}
			if !hasValue {
				return true
			}
			if len(value) > maxLabel {
				continue
			}
			if ok, err := path.Match(want, value); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// custom is the reduced form of a custom resource that an agent rule names.
type custom struct {
	agent agentMatch
}

func (*custom) mentions(remit.Ref, func(remit.Ref, mentionKind)) {}

// custom says what the rules say about a custom resource.
func (m *agentMatcher) custom(group, kind string, o metav1.Object) agentMatch {
	var out agentMatch
	for i := range m.rules {
		if slices.Contains(m.rules[i].Resources, kindOf(kind, group)+"."+group) {
			out = agentMatch{rule: m.rules[i].ID, kind: m.rules[i].Kind, known: m.rules[i].known, providers: m.rules[i].Provider}
			break
		}
	}
	for _, set := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		if name := set[agentLabel]; name != "" {
			out.name, out.known = truncate(name, maxMeaning), true
		}
	}
	return out
}

// kindOf is the kind itself of a word that customKind may have made.
func kindOf(word, group string) string { return strings.TrimSuffix(word, "."+group) }

// resources lists the custom resources that the rules name, by group and kind.
func (m *agentMatcher) resources() map[string][]string {
	out := map[string][]string{}
	for i := range m.rules {
		for _, resource := range m.rules[i].Resources {
			kind, group, _ := strings.Cut(resource, ".")
			if !slices.Contains(out[group], kind) {
				out[group] = append(out[group], kind)
			}
		}
	}
	return out
}
