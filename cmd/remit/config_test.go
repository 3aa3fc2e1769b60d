package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remit"
)

func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	read := func(text string) (*config, error) {
		if err := os.WriteFile(filepath.Join(dir, "remit.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readConfig(&globalFlags{dataDir: dir})
	}
	c, err := read(`
listen:
  address: 0.0.0.0:8443
  hosts: [remit.example.com]
  certificate: tls.crt
  key: tls.key
logs:
  - path: audit.log
    system: prod
    source: kubernetes
polls:
  - {name: acme, source: github, organization: acme, token_file: github.token, every: 2m, since: 7d}
  - {name: trails, source: aws-cloudtrail, bucket: trails, region: eu-west-1}
queue: {max_size: 20GiB}
archive:
  keep: 400d
  keep_raw: 36h
  max_size: 1048576
  systems:
    prod: {keep: 90d}
`)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	if c.Listen.Certificate != filepath.Join(dir, "tls.crt") || c.Logs[0].Path != filepath.Join(dir, "audit.log") || c.Polls[0].TokenFile != filepath.Join(dir, "github.token") {
		t.Errorf("paths are relative to the file: %+v", c)
	}
	if c.Queue.MaxSize != 20<<30 || time.Duration(c.Archive.Keep) != 400*day || time.Duration(c.Archive.KeepRaw) != 36*time.Hour ||
		c.Archive.MaxSize != 1<<20 || time.Duration(c.Archive.Systems["prod"].Keep) != 90*day {
		t.Errorf("%+v %+v", c.Queue, c.Archive)
	}
	if c.Polls[0].every() != 2*time.Minute || time.Duration(c.Polls[0].Since) != 7*day {
		t.Errorf("%+v", c.Polls[0])
	}
	for name, test := range map[string]struct{ text, says string }{
		"an unknown key":        {"listen: {port: 8443}", "port"},
		"a certificate alone":   {"listen: {certificate: tls.crt}", "certificate and key"},
		"an unknown source":     {"logs: [{path: a, source: syslog}]", "logs[0]"},
		"a log without a path":  {"logs: [{system: a}]", "logs[0]"},
		"a poll without a name": {"polls: [{source: github}]", "polls[0]"},
		"two polls of one name": {"polls: [{name: a, source: github, organization: x, token_file: t}, {name: a, source: github, organization: y, token_file: t}]", "polls[1]"},
		"what cannot be asked":  {"polls: [{name: a, source: kubernetes}]", "kubernetes"},
		"no length of time":     {"archive: {keep: soon}", "soon"},
		"no size":               {"queue: {max_size: plenty}", "plenty"},
	} {
		if _, err := read(test.text); remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "remit.yaml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
