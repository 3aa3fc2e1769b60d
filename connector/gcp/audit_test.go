package gcp_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/connector/gcp"
)

var decoder gcp.Audit

func written(r remit.Ref) string {
	if r == (remit.Ref{}) {
		return ""
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// TestLabelled decodes every labelled event and counts what was found, against
// what the raw events have.
func TestLabelled(t *testing.T) {
	var total, times, actors, credentials, addresses, resources, actions, natives int
	var withTime, withMail, withKey, withAddress, withResource, withMethod, withProject int
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	for _, l := range connectortest.Labelled(t, "gcp_audit.jsonl") {
		e := connectortest.Decode(t, decoder, string(l.Log))
		total++
		count(&times, !e.Time.IsZero())
		count(&actors, e.Actor.Name != "")
		count(&credentials, e.Credential != "")
		count(&addresses, e.Address != "")
		count(&resources, e.Resource.Name != "")
		count(&actions, e.Action != "")
		count(&natives, e.Native != "")
		raw := string(l.Log)
		v := fastjson.MustParseBytes(l.Log)
		caller := v.Get("protoPayload", "requestMetadata")
		if caller == nil {
			caller = v.Get("protopayload", "requestMetadata")
		}
		count(&withTime, v.Exists("timestamp"))
		count(&withMail, strings.Contains(raw, `"principalEmail"`))
		count(&withKey, strings.Contains(raw, `"serviceAccountKeyName"`))
		count(&withAddress, caller.Exists("callerIp") || caller.Exists("callerIP"))
		count(&withResource, strings.Contains(raw, `"resourceName"`))
		count(&withMethod, strings.Contains(raw, `"methodName"`))
		count(&withProject, strings.Contains(raw, `"project_id"`))
		if e.ID == "" || e.Outcome == "" || len(e.Views) == 0 {
			t.Errorf("%s, %s: ID %q, outcome %q, %d views", l.Rule, l.Case, e.ID, e.Outcome, len(e.Views))
		}
	}
	t.Logf("of %d: time %d/%d, actor %d/%d, credential %d/%d, address %d/%d, resource %d/%d, action %d/%d, project %d/%d",
		total, times, withTime, actors, withMail, credentials, withKey, addresses, withAddress, resources, withResource, actions, withMethod, natives, withProject)
	if times < withTime || actors != withMail || credentials != withKey || addresses != withAddress ||
		resources < withResource || actions < withMethod || natives < withProject {
		t.Error("some events have what was not found")
	}
}

// TestLabelledByHand compares events of various kinds with what a reader of the
// raw event finds: actor, credential, action, resource, address, outcome, time.
func TestLabelledByHand(t *testing.T) {
	tests := []struct{ rule, name, want string }{
		{"GCP.Cloud.Run.Set.IAM.Policy", "GCP Run IAM Policy Set", "User /some.user@company.com |  | google.cloud.run.v1.Services.SetIamPolicy | cloud_run_revision some-project/projects/some-project/locations/us-west1/services/cloudrun-exfil | 1.2.3.4 | allowed | 2024-02-02T09:44:26Z"},
		{"GCP.Cloud.Run.Set.IAM.Policy", "GCP Run IAM Policy Not Set", "User /some.user@company.com |  | google.cloud.run.v1.Services.SetIamPolicy | run some-project/projects/some-project/locations/us-west1/services/cloudrun-exfil |  | denied | 2024-02-02T09:44:26Z"},
		{"GCP.Cloud.Storage.Buckets.Modified.Or.Deleted", "bucket update", "User /user@company.io |  | storage.buckets.update | gcs_bucket gcp-project1/projects/_/buckets/my-bucket | 1.2.3.4 | allowed | 2023-03-09T10:05:23Z"},
		{"GCP.CloudBuild.Potential.Privilege.Escalation", "GCP CloudBuild - Build with Potentially Privileged Access", "iam:ServiceAccount some-project/whodoneit@some-project.iam.gserviceaccount.com | 123er456788 | google.devtools.cloudbuild.v1.CloudBuild.CreateBuild | build some-project/projects/some-project/builds | 189.163.74.177 | allowed | 2024-01-25T11:55:08Z"},
		{"GCP.Cloudfunctions.Functions.Create", "fail", " |  | v2.deploymentmanager.deployments.insert | deployment panther-threat-research/test-vm-deployment |  | denied | 2024-01-19T13:47:18Z"},
		{"GCP.Compute.SSHConnection", "Connect with IAP", "User /denethor@lotr.com |  | AuthorizeUser | gce_instance example-project/1234567890123456789 | 1.1.1.1 | allowed | 2025-05-27T16:46:46Z"},
		{"GCP.Compute.SSHConnection", "Connect to Serial Port", " |  | google.ssh-serialport.v1.connect | gce_instance example-project/projects/example-project/zones/us-central1-f/instances/example-instance/SerialPort/1 | 192.168.1.100 | allowed | 2025-05-27T21:27:27Z"},
		{"GCP.compute.instances.create.Privilege.Escalation", "GCP compute.instances - Error", "User /some.user@company.com |  | v1.compute.instances.insert | gce_instance some-project/projects/some-project/zones/us-central1-f/instances/abc |  | failed | 2024-01-30T11:03:55Z"},
		{"GCP.Destructive.Queries", "Drop Table Event", "User /user@company.io |  | google.cloud.bigquery.v2.JobService.InsertJob | bigquery_project gcp-project1/projects/gcp-project1/jobs/abcdefghijklmnopqrstuvwz | 1.2.3.4 | allowed | 2023-03-28T18:37:06Z"},
		{"GCP.GCS.BulkDeletion", "GCS Object Deletion - Failed", "User /user@example.com |  | storage.objects.delete | gcs_bucket /projects/_/buckets/test-bucket/objects/test-file.txt |  | denied | 2025-12-15T15:40:29Z"},
		{"GCP.KMS.BulkEncryption", "KMS Encrypt by GCS Service Account - Failed", "iam:ServiceAccount test-project/service-111111111111-gs-project-accounts.iam.gserviceaccount.com |  | Encrypt | cloudkms_cryptokey test-project/projects/test-project/locations/us/keyRings/test-keyring/cryptoKeys/test-key |  | failed | 2025-12-15T15:40:47Z"},
		{"GCP.KMS.CrossProjectEncryption", "Cross-Project KMS Encryption Detected", "iam:ServiceAccount victim-project/service-111111111111-gs-project-accounts.iam.gserviceaccount.com |  | Encrypt | cloudkms_cryptokey attacker-project/projects/attacker-project/locations/us/keyRings/malicious-keyring/cryptoKeys/ransomware-key |  | allowed | 2025-12-02T19:41:27Z"},
		{"GCP.Service.Account.Access.Denied", "service-account.access-denied-should-alert", "iam:ServiceAccount test-project-123456/test-no-perms@test-project-123456.iam.gserviceaccount.com | a0064fe0ef82b9e256b8b093d927ee842a19da34 | google.iam.admin.v1.CreateServiceAccount | service_account test-project-123456/projects/test-project-123456 | 12.12.12.12 | denied | 2023-05-24T21:12:55Z"},
		{"GCP.Service.Account.or.Keys.Created", "Created Service Account Key", "User /staging@company.io |  | google.iam.admin.v1.CreateServiceAccountKey | iam:ServiceAccount gcp-project1/created-service-account@gcp-project1.iam.gserviceaccount.com | 1.2.3.4 | allowed | 2023-03-09T15:50:36Z"},
		{"GCP.User.Added.To.Privileged.Group", "User Added to Privileged Group", "User /admin@example.com |  | google.admin.AdminService.addGroupMember | admin organizations/123/organizations/123/groupSettings | 11.22.33.44 | allowed | 2022-03-22T22:12:58Z"},
		{"GCP.Workload.Identity.Pool.Created.or.Updated", "CreateWorkloadIdentityPoolProvider-True", "User /user@example.com |  | google.iam.v1.WorkloadIdentityPools.CreateWorkloadIdentityPoolProvider | iam test-project/projects/test-project/locations/global/workloadIdentityPools/test-pool | 07da:0994:97fb:8db1:c68f:c109:fcdd:d594 | allowed | 2023-11-17T18:45:17Z"},
		{"GCP.SQL.ConfigChanges", "Sql Instance Change", "User /user@runpanther.io |  | cloudsql.instances.update |  | 136.24.229.58 | allowed | 2020-05-15T04:28:42Z"},
		{"GCP.iam.roles.update.Privilege.Escalation", "Test-876cde", " |  | iam.roles.dunno | iam some-research/projects/some-research/roles/CustomRole |  | allowed | "},
	}
	got := make(map[string]string)
	for _, l := range connectortest.Labelled(t, "gcp_audit.jsonl") {
		e := connectortest.Decode(t, decoder, string(l.Log))
		var at string
		if !e.Time.IsZero() {
			at = e.Time.Format(time.RFC3339)
		}
		got[l.Rule+l.Case] = strings.Join([]string{
			written(e.Actor), e.Credential, e.Action, written(e.Resource), e.Address, string(e.Outcome), at,
		}, " | ")
	}
	for _, test := range tests {
		if g := got[test.rule+test.name]; g != test.want {
			t.Errorf("%s, %s:\n got %s\nwant %s", test.rule, test.name, g, test.want)
		}
	}
}

// TestKubernetes leaves the entries of clusters to the Kubernetes connector.
func TestKubernetes(t *testing.T) {
	for _, l := range connectortest.Labelled(t, "gcp_k8s.jsonl") {
		if decoder.Recognizes(fastjson.MustParseBytes(l.Log)) {
			t.Errorf("%s, %s is taken for Google Cloud's", l.Rule, l.Case)
		}
	}
}

const entry = `{"insertId":"e1","timestamp":"2024-05-01T10:00:00.5Z","logName":"projects/p1/logs/cloudaudit.googleapis.com%2Fdata_access",
"resource":{"type":"gcs_bucket","labels":{"project_id":"p1","bucket_name":"data"}},
"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"storage.googleapis.com","methodName":"storage.objects.get",
"authenticationInfo":{"principalEmail":"app@p1.iam.gserviceaccount.com","principalSubject":"serviceAccount:app@p1.iam.gserviceaccount.com",
"serviceAccountKeyName":"//iam.googleapis.com/projects/p1/serviceAccounts/app@p1.iam.gserviceaccount.com/keys/k1"},
"authorizationInfo":[{"permission":"storage.objects.get","granted":true}],
"requestMetadata":{"callerIp":"10.0.0.1","callerSuppliedUserAgent":"gcloud"},"resourceName":"projects/_/buckets/data/objects/a"}}`

// TestWrappings finds the same entry in each form in which it comes.
func TestWrappings(t *testing.T) {
	for name, raw := range map[string]string{
		"entry":    entry,
		"list":     `[` + entry + `]`,
		"entries":  `{"entries":[` + entry + `]}`,
		"function": `{"data":` + entry + `}`,
		"Pub/Sub":  `{"message":{"messageId":"1","data":"` + base64.StdEncoding.EncodeToString([]byte(entry)) + `"},"subscription":"s"}`,
		"BigQuery": strings.Replace(entry, "protoPayload", "protopayload_auditlog", 1),
	} {
		if e := connectortest.Decode(t, decoder, raw); e.ID != "e1" || e.Action != "storage.objects.get" || e.Native != "p1" || e.Credential != "k1" {
			t.Errorf("%s: %q %q %q %q", name, e.ID, e.Action, e.Native, e.Credential)
		}
	}
	for name, raw := range map[string]string{
		"Kubernetes":        `{"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"k8s.io","methodName":"io.k8s.core.v1.pods.create"}}`,
		"Kubernetes method": `[{"protoPayload":{"methodName":"io.k8s.core.v1.pods.create"}}]`,
		"request log":       `{"protoPayload":{"@type":"type.googleapis.com/google.appengine.logging.v1.RequestLog","methodName":"x"}}`,
		"text entry":        `{"insertId":"1","textPayload":"x","logName":"projects/p/logs/x"}`,
		"empty":             `{}`, "string": `"x"`, "empty list": `[]`,
	} {
		if decoder.Recognizes(fastjson.MustParse(raw)) {
			t.Errorf("%s is taken for an audit log", name)
		}
	}
}

// TestIdentities tells who acted and for whom.
func TestIdentities(t *testing.T) {
	tests := []struct{ name, info, actor, chain string }{
		{"user", `{"principalEmail":"ann@example.com"}`, "User /ann@example.com", ""},
		{"account", `{"principalEmail":"a@other.iam.gserviceaccount.com"}`, "iam:ServiceAccount other/a@other.iam.gserviceaccount.com", ""},
		{"account of an old project", `{"principalEmail":"a@proj.example.com.iam.gserviceaccount.com"}`, "iam:ServiceAccount example.com:proj/a@proj.example.com.iam.gserviceaccount.com", ""},
		{"App Engine", `{"principalEmail":"proj@appspot.gserviceaccount.com"}`, "iam:ServiceAccount proj/proj@appspot.gserviceaccount.com", ""},
		{"Compute Engine", `{"principalEmail":"12-compute@developer.gserviceaccount.com"}`, "iam:ServiceAccount p1/12-compute@developer.gserviceaccount.com", ""},
		{"no mail", `{"principalSubject":"user:ann@example.com"}`, "User /ann@example.com", ""},
		{
			"workload", `{"principalSubject":"principal://iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/gh/subject/repo:o/r"}`,
			"iam:Principal projects/12/locations/global/workloadIdentityPools/gh/repo:o/r", "",
		},
		{"GKE", `{"principalSubject":"serviceAccount:p1.svc.id.goog[pay/api]"}`, "iam:Principal p1.svc.id.goog/pay/api", ""},
		{
			"impersonation", `{"principalEmail":"b@p1.iam.gserviceaccount.com","serviceAccountDelegationInfo":[{"firstPartyPrincipal":{"principalEmail":"ann@example.com"}},{"principalSubject":"serviceAccount:a@p1.iam.gserviceaccount.com"}]}`,
			"iam:ServiceAccount p1/b@p1.iam.gserviceaccount.com", "iam:ServiceAccount p1/a@p1.iam.gserviceaccount.com, User /ann@example.com",
		},
		{
			"GKE impersonation", `{"principalEmail":"b@p1.iam.gserviceaccount.com","serviceAccountDelegationInfo":[{"principalSubject":"serviceAccount:p1.svc.id.goog[pay/api]"}]}`,
			"iam:ServiceAccount p1/b@p1.iam.gserviceaccount.com", "iam:Principal p1.svc.id.goog/pay/api",
		},
		{"Google", `{"principalEmail":"system@google.com"}`, "Service /system@google.com", ""},
		{"nobody", `{}`, "", ""},
	}
	for _, test := range tests {
		e := connectortest.Decode(t, decoder, `{"logName":"projects/p1/logs/x","protoPayload":{"methodName":"m","authenticationInfo":`+test.info+`}}`)
		chain := make([]string, 0, len(e.Chain))
		for _, ref := range e.Chain {
			chain = append(chain, written(ref))
		}
		if written(e.Actor) != test.actor || strings.Join(chain, ", ") != test.chain {
			t.Errorf("%s: actor %q, chain %q", test.name, written(e.Actor), chain)
		}
	}
}

// TestMinted tells whom a token was issued for, and which key.
func TestMinted(t *testing.T) {
	e := connectortest.Decode(t, decoder, `{"logName":"projects/p1/logs/x","protoPayload":{"serviceName":"iamcredentials.googleapis.com","methodName":"GenerateAccessToken",
	"resourceName":"projects/-/serviceAccounts/123","request":{"lifetime":"900s"}},"resource":{"type":"service_account","labels":{"email_id":"a@p2.iam.gserviceaccount.com"}}}`)
	if written(e.Minted.For) != "iam:ServiceAccount p2/a@p2.iam.gserviceaccount.com" || e.Minted.Lifetime != 15*time.Minute || e.Minted.Credential != "" {
		t.Errorf("%+v", e.Minted)
	}
	e = connectortest.Decode(t, decoder, `{"logName":"projects/p1/logs/x","protoPayload":{"serviceName":"iam.googleapis.com","methodName":"google.iam.admin.v1.CreateServiceAccountKey",
	"resourceName":"projects/-/serviceAccounts/123","response":{"name":"projects/p2/serviceAccounts/a@p2.iam.gserviceaccount.com/keys/k9","valid_before_time":{"seconds":1714568645}}}}`)
	if written(e.Minted.For) != "iam:ServiceAccount p2/a@p2.iam.gserviceaccount.com" || e.Minted.Credential != "k9" || e.Minted.Expires.Unix() != 1714568645 {
		t.Errorf("%+v", e.Minted)
	}
	e = connectortest.Decode(t, decoder, `{"protoPayload":{"serviceName":"iamcredentials.googleapis.com","methodName":"GenerateAccessToken","status":{"code":7},"resourceName":"projects/-/serviceAccounts/a@p2.iam.gserviceaccount.com"}}`)
	if e.Minted.For.Name != "" || e.Outcome != remit.Denied {
		t.Errorf("a refused call minted %+v", e.Minted)
	}
}

// TestViews gives rules the entry under the logsource that they are written for.
func TestViews(t *testing.T) {
	e := connectortest.Decode(t, decoder, `{"protoPayload":{"serviceName":"login.googleapis.com","methodName":"google.login.LoginService.loginFailure"}}`)
	if len(e.Views) != 2 || e.Views[0].Service != "gcp.audit" || e.Views[1].Service != "google_workspace.login" {
		t.Errorf("%+v", e.Views)
	}
}

func TestDecodeRefuses(t *testing.T) {
	var in connector.Interner
	for _, raw := range []string{`[]`, `1`, `{}`, `{"textPayload":"x"}`} {
		var e connector.Event
		if err := decoder.Decode(fastjson.MustParse(raw), &in, &e); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// TestStrip leaves no secret in an entry, and what is none as it is.
func TestStrip(t *testing.T) {
	v := fastjson.MustParse(`{"insertId":"kept","protoPayload":{"methodName":"kept","response":{"private_key_data":"S1","accessToken":"S2","name":"kept",
	"secretKey":{"signedJwt":"S3"}},"request":{"function":{"environmentVariables":{"ANY":"S4"}},"template":{"containers":[{"env":[{"name":"kept","value":"S5"}]}]},
	"build":{"steps":[{"env":["KEY=S6"]}]},"password":"S7","note":"-----BEGIN PRIVATE KEY-----\nS8\n-----END PRIVATE KEY-----"}}}`)
	if !decoder.Strip(v, &fastjson.Arena{}) {
		t.Fatal("nothing was stripped")
	}
	out := v.String()
	for _, secret := range []string{"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"} {
		if strings.Contains(out, secret) {
			t.Errorf("%s is left: %s", secret, out)
		}
	}
	if n := strings.Count(out, "kept"); n != 4 {
		t.Errorf("%d of 4 harmless values are left: %s", n, out)
	}
}

// FuzzAudit: nothing that comes from outside makes the decoder panic, and
// an event keeps its ID when it is stripped.
func FuzzAudit(f *testing.F) {
	connectortest.FuzzDecoder(
		f, []connector.Decoder{decoder},
		entry,
		`{"message":{"data":"eyJwcm90b1BheWxvYWQiOnsibWV0aG9kTmFtZSI6IngifX0="}}`,
		`{"protopayload":{"at_sign_type":"type.googleapis.com/google.cloud.audit.AuditLog","authorizationInfo":[1,{"granted":false}],"response":{"private_key_data":"x"}}}`,
		`{"protoPayload":{"methodName":"CreateServiceAccountKey","response":{"name":"projects/-/serviceAccounts/","validBeforeTime":{"seconds":"9"}},"authenticationInfo":{"serviceAccountDelegationInfo":[{},{"principalSubject":"deleted:user:"}]}}}`,
	)
}

func BenchmarkDecoder(b *testing.B) { connectortest.BenchmarkDecoder(b, decoder, entry) }
