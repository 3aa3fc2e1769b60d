package github

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
)

func decode(t testing.TB, raw string) (connector.Event, error) {
	t.Helper()
	v, err := fastjson.Parse(raw)
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if !Audit.Recognizes(v) {
		t.Errorf("not recognized: %s", raw)
	}
	var e connector.Event
	return e, Audit.Decode(v, &connector.Interner{}, &e)
}

// orHash is the ID that an event has, or the hash that stands for it.
func orHash(id, got string) string {
	if id == "" && strings.HasPrefix(got, "sha256:") {
		return got
	}
	return id
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func ms(n int64) time.Time { return time.UnixMilli(n).UTC() }

const browserAgent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"

func user(name string) remit.Ref { return remit.Ref{Kind: "User", Name: name} }

// TestLabelledEvents reads every event; what each of some must give was written
// down by hand.
func TestLabelledEvents(t *testing.T) {
	repo := func(name string) remit.Ref { return remit.Ref{Kind: "repo", Name: name} }
	want := map[string]remit.Activity{
		"GitHub.Branch.ProtectionDisabled/GitHub - Branch Protection Disabled": {
			Native: "my-org", Time: ms(1621305118553), Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "protected_branch.destroy", Write: true, Resource: repo("my-org/my-repo"), Outcome: remit.Allowed,
		},
		"GitHub.Org.IpAllowlist/GitHub - IP Allow list disabled": {
			Native: "my-org", Time: ms(1621305118553), Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "ip_allow_list.disable", Write: true, Resource: remit.Ref{Kind: "org", Name: "my-org"}, Outcome: remit.Allowed,
		},
		"GitHub.Org.Moderators.Add/GitHub - Org Moderator Added": {
			ID: "Ab123", Native: "example-io", Time: at("2022-12-11T05:17:28.078Z"), Actor: user("sarah78"), Principal: "sarah78", Type: remit.Human,
			Action: "organization_moderators.add_user", Write: true, Resource: remit.Ref{Kind: "org", Name: "example-io"}, Outcome: remit.Allowed,
		},
		"GitHub.Org.Modified/GitHub - Team Deleted": {
			Native: "my-org", Time: ms(1621305118553), Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "team.destroy", Write: true, Resource: remit.Ref{Kind: "team", Namespace: "my-org", Name: "my-org/my-team"}, Outcome: remit.Allowed,
		},
		"Github.Organization.App.Integration.Installed/App Integration Installation-2": {
			ID: "A-1234", Native: "example-io", Time: at("2022-12-02T17:40:08.671Z"), Actor: user("leetboy"), Principal: "leetboy", Type: remit.Human,
			Action: "integration_installation.create", Write: true, Resource: remit.Ref{Kind: "app", Namespace: "example-io", Name: "Datadog CI"}, Outcome: remit.Allowed,
		},
		"Github.Organization.App.Integration.Installed/Repository Archived": { // created_at is 1621305118553.0
			Native: "my-org", Time: ms(1621305118553), Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "repo.archived", Write: true, Resource: repo("my-org/my-repo"), Outcome: remit.Allowed,
		},
		"GitHub.Repo.InitialAccess/GitHub - Clone without Actor": {
			Native: "my-org", Time: ms(1623971719091), Action: "git.push", Write: true, Resource: repo("my-org/my-repo"), Outcome: remit.Allowed,
		},
		"GitHub.Repo.InitialAccess/GitHub - Initial Access by Allowed User": {
			Native: "my-org", Time: ms(1623971719091), Actor: remit.Ref{Kind: "App", Name: "secret-scanning[bot]"}, Principal: "secret-scanning[bot]", Type: remit.Application,
			Action: "git.push", Write: true, Resource: repo("my-org/my-repo"), Outcome: remit.Allowed,
		},
		"GitHub.Repo.RulesetModified/GitHub - Ruleset Created": { // created_at is 2024-12-17 00:00:00000000
			Native: "some-org", Time: at("2024-12-17T00:00:00Z"), Actor: user("dog"), Principal: "dog", Type: remit.Human,
			Action: "repository_ruleset.create", Write: true, Outcome: remit.Allowed, UserAgent: browserAgent,
			Resource: remit.Ref{Kind: "ruleset", Namespace: "some-org/ruleset-repo", Name: "a-ruleset-name"},
		},
		"GitHub.SupplyChain.SuspiciousUserAgents/Yarn User Agent - Suspicious Package Installation": {
			Native: "organization", Actor: remit.Ref{Kind: "App", Name: "suspicious-user"}, Principal: "suspicious-user", Type: remit.Application,
			CredentialType: remit.ShortLivedToken, Action: "repo.create", Write: true, Resource: repo("organization/new-malicious-repo"),
			Outcome: remit.Allowed, UserAgent: "yarn/3.6.4-core npm/? node/v20.10.0 darwin arm64",
		},
		"GitHub.SupplyChain.SuspiciousUserAgents/Legitimate Git Clone Action - Should Not Alert": {
			Native: "organization", Actor: user("developer"), Principal: "developer", Type: remit.Human,
			CredentialType: remit.StaticToken, Action: "git.clone", Resource: repo("organization/project"),
			Outcome: remit.Allowed, UserAgent: "npm/10.2.4 node/v18.19.0 linux x64 workspaces/false",
		},
		"GitHub.SupplyChain.SuspiciousUserAgents/Git Command Line User Agent - Should Not Alert": {
			Native: "organization", Actor: user("developer"), Principal: "developer", Type: remit.Human,
			CredentialType: remit.SSHKey, Action: "git.push", Write: true, Resource: repo("organization/project"),
			Outcome: remit.Allowed, UserAgent: "git/2.39.3",
		},
		"GitHub.User.RoleUpdated/GitHub - Member Updated": { // no org: the repository's owner
			Native: "my-org", Time: ms(1621305118553), Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "org.update_member", Write: true, Resource: remit.Ref{Kind: "org", Name: "my-org"}, Outcome: remit.Allowed,
		},
		"GitHub.Webhook.Modified/GitHub - Webhook Created": { // the ID lies in data, as a number
			Native: "my-org", Actor: user("cat"), Principal: "cat", Type: remit.Human,
			Action: "hook.create", Write: true, Outcome: remit.Allowed,
			Resource: remit.Ref{Kind: "hook", Namespace: "my-org/my-repo", Name: "111222333444555"},
		},
		"GitHub.Webhook.Modified/Github - App Webhook Created": {
			Native: "my-org", Actor: user("dog"), Principal: "dog", Type: remit.Human,
			Action: "hook.create", Write: true, Outcome: remit.Allowed,
			Resource: remit.Ref{Kind: "hook", Namespace: "my-org", Name: "111222333444555"},
		},
		"GitHub.Webhook.MaliciousCommitContent/Commit Message with Command Substitution": {
			Native: "org", Actor: user("developer"), Principal: "developer", Type: remit.Human,
			Action: "push", Write: true, Resource: repo("org/repo"), Outcome: remit.Allowed,
		},
		"GitHub.Webhook.MaliciousCommitContent/Commit with Malicious Author Name": { // an author is no actor
			Native: "target", Action: "push", Write: true, Resource: repo("target/repo"), Outcome: remit.Allowed,
		},
		"GitHub.Webhook.MaliciousCommitContent/Non-Push Event": {
			Native: "org", Action: "pull_request.opened", Write: true, Resource: repo("org/repo"), Outcome: remit.Allowed,
		},
		"GitHub.Webhook.WorkflowContainsCheckout/Workflow job with checkout step completed": {
			Native: "example-org", Time: at("2025-10-15T18:47:18Z"), Action: "workflow_job.completed",
			Resource: repo("example-org/example-repo"), Outcome: remit.Allowed,
		},
	}
	seen := 0
	for name, raw := range connectortest.LabelledLogs(t, "github.jsonl") {
		e, err := decode(t, string(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.Action == "" || e.Native == "" || e.Resource.Name == "" || e.Outcome == "" || len(e.Views) != 1 {
			t.Errorf("%s: something is missing: %+v", name, e.Activity)
		}
		if w, ok := want[name]; ok {
			seen++
			w.ID = orHash(w.ID, e.ID)
			if !reflect.DeepEqual(e.Activity, w) {
				t.Errorf("%s:\n got %+v\nwant %+v", name, e.Activity, w)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d expectations met an event", seen, len(want))
	}
}
