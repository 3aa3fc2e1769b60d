package aws_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/aws"
	"remit/connector/connectortest"
)

var decoder aws.CloudTrail

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
	var withTime, withIdentity, withKey, withAddress, withResources, withAccount int
	for _, l := range connectortest.Labelled(t, "aws_cloudtrail.jsonl") {
		e := connectortest.Decode(t, decoder, string(l.Log))
		total++
		count := func(n *int, is bool) {
			if is {
				*n++
			}
		}
		count(&times, !e.Time.IsZero())
		count(&actors, e.Actor.Name != "")
		count(&credentials, e.Credential != "" && !strings.HasPrefix(e.Credential, "session"))
		count(&addresses, e.Address != "")
		count(&resources, e.Resource.Name != "")
		count(&actions, e.Action != "")
		count(&natives, e.Native != "")

		v := fastjson.MustParseBytes(l.Log)
		count(&withTime, v.Exists("eventTime") || v.Exists("eventtime"))
		u := v.Get("userIdentity")
		count(&withIdentity, len(u.GetStringBytes("type")) > 0)
		count(&withKey, len(u.GetStringBytes("accessKeyId"))+len(u.GetStringBytes("accesKeyId")) > 0)
		count(&withAddress, len(v.GetStringBytes("sourceIPAddress")) > 0)
		count(&withResources, len(v.GetArray("resources")) > 0)
		count(&withAccount, len(v.GetStringBytes("recipientAccountId"))+len(u.GetStringBytes("accountId")) > 0)
		if e.ID == "" || e.Outcome == "" || len(e.Views) != 1 {
			t.Errorf("%s, %s: ID %q, outcome %q, %d views", l.Rule, l.Case, e.ID, e.Outcome, len(e.Views))
		}
	}
	t.Logf("of %d: time %d/%d, actor %d/%d, credential %d/%d, address %d/%d, account %d/%d, resource %d (listed in %d), action %d",
		total, times, withTime, actors, withIdentity, credentials, withKey, addresses, withAddress, natives, withAccount, resources, withResources, actions)
	// Those of type Root, Unknown and the like all have an actor.
	if times != withTime || actors < withIdentity || credentials != withKey || addresses != withAddress ||
		natives != withAccount || actions != total || resources < withResources {
		t.Error("some events have what was not found")
	}
}

// TestLabelledByHand compares events of various kinds with what a reader of the
// raw event finds: actor, credential, action, resource, address, outcome, time.
func TestLabelledByHand(t *testing.T) {
	const (
		devAdmin = "iam:Role 123123123123/DevAdmin | ASIAQWERQWERQWERQWER short-lived-token | "
		reserved = "AWSReservedSSO_DevAdmin_635426549a280cc6"
	)
	tests := []struct{ rule, name, want string }{
		{"AWS.Bedrock.GuardrailUpdateDelete", "Guardrail Updated", devAdmin + "bedrock:UpdateGuardrail | bedrock:Guardrail 123123123123/cmy5azq5koeo | 123.123.123.123 | allowed | 2025-01-21T17:39:10Z"},
		{"AWS.CloudTrail.Account.Discovery", "DescribeAccount", "iam:Role 123456789123/TestUser | ASIA3JHVJH35KB7LJHV2 short-lived-token | organizations:DescribeAccount | Account 123456789123/123456789123 | 1.1.1.1 | allowed | 2022-11-21T18:06:52Z"},
		{"AWS.CloudTrail.Created", "CloudTrail Was Created", "iam:Role 123456789012/tester | 1  | cloudtrail:CreateTrail | cloudtrail:Trail 123456789012/example-trail | 111.111.111.111 | allowed | 2019-01-01T00:00:00Z"},
		{"AWS.CloudTrail.PasswordSpraying", "Failed Console Login", "iam:User 111122223333/alice |  password | signin:ConsoleLogin |  |  | denied | "},
		{"AWS.Console.RootLogin", "Successful Root Login", "iam:Root 123456789012/root |  password | signin:ConsoleLogin |  | 111.111.111.111 | allowed | 2019-01-01T00:00:00Z"},
		{"AWS.CloudTrail.ShortLifecycle", "Completely Unrelated Event", "iam:Role 111122223333/SampleRole | SAMPLE_ACCESS_KEY  | s3:GetBucketLifecycle | s3:Bucket 111122223333/sample-cloudtrail-bucket-name | 1.2.3.4 | failed | 2024-11-26T17:23:59Z"},
		{"AWS.EC2.DownloadInstanceUserData", "Unsuccessful Attempt", "iam:Role 111122223333/SampleRole | SAMPLE_ACCESS_KEY  | ec2:DescribeInstanceAttribute | ec2:Instance 111122223333/i-12345678 | 1.2.3.4 | denied | 2024-12-11T21:49:07Z"},
		{"AWS.EC2.ManyPasswordReadAttempts", "Unrelated Event", "Account 111122223333/111122223333 |   | sts:AssumeRole | iam:Role 111122223333/SampleRole | 1.2.3.4 | allowed | 2024-12-12T16:04:32Z"},
		{"AWS.EC2.Startup.Script.Change", "ModifyInstanceAttribute-NoUserData", " |   | ec2:ModifyInstanceAttribute | ec2:Instance /testinstanceid |  | allowed | 2022-07-17T04:50:23Z"},
		{"AWS.S3.SecurityControlDisabling", "No Match - Failed API Call (Access Denied)", "iam:User 111111111111/testuser | AKIA-MOCKACCESSKEYID-1 api-key | s3:PutBucketLogging | s3:Bucket 111111111111/critical-data-bucket | 1.2.3.4 | denied | 2024-01-15T10:45:23Z"},
		{"AWS.SecretsManager.RetrieveSecrets", "GetSecretValue Denied", "iam:Role 123123123123/" + reserved + " | ASIASXP6SDP2LKLKYYC4 short-lived-token | secretsmanager:GetSecretValue | secretsmanager:Secret 123123123123/stratus-red-team-retrieve-secret-3-gscOm8 | 123.123.123.123 | denied | 2024-10-17T21:48:45Z"},
		{"AWS.SSM.DecryptSSMParams", "Single Secret Accessed in Single Event", "iam:Role 111122223333/SampleRole | EXAMPLE_ACCESS_KEY  | ssm:GetParameter | ssm:Parameter 111122223333/credentials/stratus-red-team/credentials-25 | 1.2.3.4 | allowed | 2025-02-14T19:43:09Z"},
		{"AWS.SSM.DistributedCommand", "Unrelated Event", "iam:Role 111122223333/SampleRole | session:SAMPLE_PRINCIPAL_ID:SessionId short-lived-token | ec2:DescribeInstances | ec2:Instance 111122223333/i-09c2e8f99d245cc69 | eks.amazonaws.com | allowed | 2025-02-19T18:00:45Z"},
		{"AWS.STS.GetCallerIdentity.TruffleHog", "TruffleHog GetCallerIdentity", "iam:User 123456789012/compromised-user | AKIAIOSFODNN7EXAMPLE api-key | sts:GetCallerIdentity |  | 198.51.100.42 | allowed | 2024-01-15T10:30:00Z"},
		{"AWS.CloudTrail.VPCE.AccessDenied", "VPC Endpoint Access Denied", "Account 111111111111/111111111111 |   | s3:GetObject | s3:Object 222222222222/example-bucket/sensitive-file.txt | 10.0.0.1 | denied | 2023-03-01T00:00:00Z"},
		{"AWS.CloudTrail.IAMAssumeRoleBlacklistIgnored", "Error Assuming IAM Blocked Role", "iam:User 123456789012/example-user | 1111  | sts:AssumeRole | iam:Role 123456789012/FullAdminRole | 111.111.111.111 | denied | 2019-01-01T00:00:00Z"},
		{"Role.Assumed.by.User", "Role Assumed by Service", "Service /lambda.amazonaws.com |   | sts:AssumeRole | iam:Role 123456789123/my_role_arn | lambda.amazonaws.com | allowed | 2024-06-02T20:27:12Z"},
		{"AWS.Console.Sign-In", "Test-94439c", " |   | sso:Authenticate |  |  | allowed | 2024-06-03T15:23:22Z"},
	}
	got := make(map[string]string)
	for _, l := range connectortest.Labelled(t, "aws_cloudtrail.jsonl") {
		e := connectortest.Decode(t, decoder, string(l.Log))
		var at string
		if !e.Time.IsZero() {
			at = e.Time.Format(time.RFC3339)
		}
		got[l.Rule+l.Case] = strings.Join([]string{
			written(e.Actor), e.Credential + " " + string(e.CredentialType), e.Action, written(e.Resource), e.Address, string(e.Outcome), at,
		}, " | ")
	}
	for _, test := range tests {
		if g := got[test.rule+test.name]; g != test.want {
			t.Errorf("%s, %s:\n got %s\nwant %s", test.rule, test.name, g, test.want)
		}
	}
}

const assumed = `{"eventVersion":"1.08","eventID":"e1","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventTime":"2024-05-01T10:00:00Z",
"recipientAccountId":"111122223333","sourceIPAddress":"10.0.0.1","readOnly":true,
"resources":[{"type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::data","accountId":"111122223333"},{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::data/a/b"}],
"userIdentity":{"type":"AssumedRole","principalId":"AROAX:i-0123456789abcdef0","accountId":"111122223333","accessKeyId":"ASIAEXAMPLE",
"arn":"arn:aws:sts::111122223333:assumed-role/web/i-0123456789abcdef0",
"sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::111122223333:role/team/web","userName":"web"},"sourceIdentity":"ann"}}}`

// TestWrappings finds the same event in each form in which it comes.
func TestWrappings(t *testing.T) {
	quoted, err := json.Marshal(assumed)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"event":                    assumed,
		"file":                     `{"Records":[` + assumed + `]}`,
		"list":                     `[` + assumed + `]`,
		"EventBridge":              `{"detail-type":"AWS API Call via CloudTrail","account":"1","detail":` + assumed + `}`,
		"CloudWatch Logs":          `{"@timestamp":"2024","@message":` + string(quoted) + `}`,
		"CloudWatch subscription":  `{"messageType":"DATA_MESSAGE","logEvents":[{"id":"1","message":` + string(quoted) + `}]}`,
		"shipper":                  `{"message":` + string(quoted) + `}`,
		"LookupEvents":             `{"Events":[{"EventId":"e1","CloudTrailEvent":` + string(quoted) + `}]}`,
		"a list of files":          `[{"Records":[` + assumed + `]}]`,
		"EventBridge within a log": `{"message":"{\"detail-type\":\"x\",\"eventSource\":1,\"detail\":{\"eventSource\":\"s3.amazonaws.com\",\"eventName\":\"GetObject\",\"eventID\":\"e1\"}}"}`,
	} {
		if e := connectortest.Decode(t, decoder, raw); e.ID != "e1" || e.Action != "s3:GetObject" {
			t.Errorf("%s: %q %q", name, e.ID, e.Action)
		}
	}
	for name, raw := range map[string]string{
		"S3 notification": `{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put"}]}`,
		"Azure":           `{"records":[{"operationName":"x"}]}`,
		"EventBridge":     `{"detail-type":"EC2 Instance State-change Notification","detail":{"state":"running"}}`,
		"empty":           `{}`, "string": `"x"`, "number": `1`, "empty list": `[]`,
	} {
		if decoder.Recognizes(fastjson.MustParse(raw)) {
			t.Errorf("%s is taken for CloudTrail", name)
		}
	}
}

// TestIdentities tells who acted, from each type of userIdentity.
func TestIdentities(t *testing.T) {
	tests := []struct{ name, identity, actor, principal, chain, bound string }{
		{
			"instance", `{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/web/i-0123456789abcdef0","accountId":"1","accessKeyId":"ASIA1"}`,
			"iam:Role 1/web", "arn:aws:sts::1:assumed-role/web/i-0123456789abcdef0", "", "ec2:Instance 1/i-0123456789abcdef0",
		},
		{
			"role of another account", `{"type":"AssumedRole","arn":"arn:aws:sts::2:assumed-role/ops/x","accountId":"2"}`,
			"iam:Role 2/ops", "arn:aws:sts::2:assumed-role/ops/x", "", "",
		},
		{
			"role by its issuer", `{"type":"AssumedRole","principalId":"AROA:ann@example.com","sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::3:role/a/b/ops"}}}`,
			"iam:Role 3/ops", "AROA:ann@example.com", "User /ann@example.com", "",
		},
		{
			"user with a path", `{"type":"IAMUser","arn":"arn:aws:iam::1:user/division/ann","userName":"ann","accountId":"1","invokedBy":"cloudformation.amazonaws.com"}`,
			"iam:User 1/ann", "arn:aws:iam::1:user/division/ann", "Service /cloudformation.amazonaws.com", "",
		},
		{"root", `{"type":"Root","arn":"arn:aws:iam::1:root","accountId":"1"}`, "iam:Root 1/root", "arn:aws:iam::1:root", "", ""},
		{"service", `{"type":"AWSService","invokedBy":"ec2.amazonaws.com"}`, "Service /ec2.amazonaws.com", "ec2.amazonaws.com", "", ""},
		{
			"federated", `{"type":"FederatedUser","arn":"arn:aws:sts::1:federated-user/bob","accountId":"1","sessionContext":{"sessionIssuer":{"type":"IAMUser","arn":"arn:aws:iam::1:user/ann"}}}`,
			"sts:FederatedUser 1/bob", "arn:aws:sts::1:federated-user/bob", "iam:User 1/ann", "",
		},
		{
			"SAML", `{"type":"SAMLUser","principalId":"x:ann","userName":"ann","identityProvider":"arn:aws:iam::1:saml-provider/idp"}`,
			"saml:User arn:aws:iam::1:saml-provider/idp/ann", "ann", "", "",
		},
		{
			"web identity", `{"type":"WebIdentityUser","userName":"repo:o/r:ref:refs/heads/main","identityProvider":"arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"}`,
			"oidc:Subject token.actions.githubusercontent.com/repo:o/r:ref:refs/heads/main", "repo:o/r:ref:refs/heads/main", "", "",
		},
		{
			"session of a web identity", `{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/app/s","sessionContext":{"webIdFederationData":{"federatedProvider":"arn:aws:iam::1:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/ABC","attributes":{"oidc.eks.eu-west-1.amazonaws.com/id/ABC:sub":"system:serviceaccount:pay:api"}}}}`,
			"iam:Role 1/app", "arn:aws:sts::1:assumed-role/app/s", "oidc:Subject oidc.eks.eu-west-1.amazonaws.com/id/ABC/system:serviceaccount:pay:api", "",
		},
		{
			"Identity Center", `{"type":"IdentityCenterUser","accountId":"1","onBehalfOf":{"userId":"u-1","identityStoreArn":"arn:aws:identitystore::1:identitystore/d-9"},"credentialId":"c"}`,
			"identitystore:User d-9/u-1", "", "", "",
		},
		{
			"on behalf", `{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_1/ann","onBehalfOf":{"userId":"u-1","identityStoreArn":"arn:aws:identitystore::1:identitystore/d-9"}}`,
			"iam:Role 1/AWSReservedSSO_Admin_1", "arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_1/ann", "identitystore:User /ann, identitystore:User d-9/u-1", "",
		},
		{"hidden name", `{"type":"IAMUser","accountId":"1","userName":"HIDDEN_DUE_TO_SECURITY_REASONS"}`, "", "", "", ""},
		{"no type", `{"arn":"arn:aws:iam::1:user/ann"}`, "iam:User 1/ann", "arn:aws:iam::1:user/ann", "", ""},
	}
	for _, test := range tests {
		e := connectortest.Decode(t, decoder, `{"eventSource":"s3.amazonaws.com","eventName":"ListBuckets","eventVersion":"1","userIdentity":`+test.identity+`}`)
		chain := make([]string, 0, len(e.Chain))
		for _, ref := range e.Chain {
			chain = append(chain, written(ref))
		}
		if written(e.Actor) != test.actor || e.Principal != test.principal || strings.Join(chain, ", ") != test.chain || written(e.Bound) != test.bound {
			t.Errorf("%s: actor %q, principal %q, chain %q, bound %q", test.name, written(e.Actor), e.Principal, chain, written(e.Bound))
		}
	}
}

// TestMinted tells which credential an event issued, to whom and until when.
func TestMinted(t *testing.T) {
	const user = `"userIdentity":{"type":"IAMUser","accountId":"1","arn":"arn:aws:iam::1:user/ann","accessKeyId":"AKIA1"},`
	tests := []struct{ name, rest, credential, whom, bound, expires string }{
		{
			"AssumeRole", user + `"requestParameters":{"roleArn":"arn:aws:iam::2:role/p/ops","durationSeconds":900},
			"responseElements":{"credentials":{"accessKeyId":"ASIA2","sessionToken":"t","expiration":"May 1, 2024, 1:04:05 PM"},"assumedRoleUser":{"arn":"arn:aws:sts::2:assumed-role/ops/s"}}`,
			"ASIA2 15m0s", "iam:Role 2/ops", "", "2024-05-01T13:04:05Z",
		},
		{
			"AssumeRole", `"userIdentity":{"type":"AWSService","invokedBy":"ec2.amazonaws.com"},"requestParameters":{"roleArn":"arn:aws:iam::1:role/web","roleSessionName":"i-0123456789abcdef0"},
			"responseElements":{"credentials":{"accessKeyId":"ASIA3","expiration":"May 1, 2024, 1:04:05 PM"}}`,
			"ASIA3 0s", "iam:Role 1/web", "ec2:Instance 1/i-0123456789abcdef0", "2024-05-01T13:04:05Z",
		},
		{
			"GetSessionToken", user + `"responseElements":{"credentials":{"accessKeyId":"ASIA4","expiration":1714568645000}}`,
			"ASIA4 0s", "iam:User 1/ann", "", "2024-05-01T13:04:05Z",
		},
		{
			"GetFederationToken", user + `"responseElements":{"credentials":{"accessKeyId":"ASIA5"},"federatedUser":{"arn":"arn:aws:sts::1:federated-user/bob"}}`,
			"ASIA5 0s", "sts:FederatedUser 1/bob", "", "",
		},
		{
			"CreateAccessKey", user + `"responseElements":{"accessKey":{"accessKeyId":"AKIA6","userName":"bob","status":"Active"}}`,
			"AKIA6 0s", "iam:User 1/bob", "", "",
		},
		{"AssumeRole", user + `"errorCode":"AccessDenied","responseElements":{"credentials":{"accessKeyId":"ASIA7"}}`, " 0s", "", "", ""},
	}
	for _, test := range tests {
		e := connectortest.Decode(t, decoder, `{"eventSource":"sts.amazonaws.com","recipientAccountId":"1","eventName":"`+test.name+`",`+test.rest+`}`)
		var expires string
		if !e.Minted.Expires.IsZero() {
			expires = e.Minted.Expires.Format(time.RFC3339)
		}
		if got := e.Minted.Credential + " " + e.Minted.Lifetime.String(); got != test.credential ||
			written(e.Minted.For) != test.whom || written(e.Minted.Bound) != test.bound || expires != test.expires {
			t.Errorf("%s: %q for %q bound to %q until %q", test.name, got, written(e.Minted.For), written(e.Minted.Bound), expires)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	var in connector.Interner
	for _, raw := range []string{`[]`, `1`, `{}`, `{"userIdentity":{}}`} {
		var e connector.Event
		if err := decoder.Decode(fastjson.MustParse(raw), &in, &e); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%s: %v", raw, err)
		}
	}
	var e connector.Event
	err := decoder.Decode(fastjson.MustParse(`{"eventType":"AwsCloudTrailInsight","eventID":"1"}`), &in, &e)
	if !errors.Is(err, connector.ErrIgnored) {
		t.Errorf("an insight: %v", err)
	}
}

// TestStrip leaves no secret in an event, and what is none as it is.
func TestStrip(t *testing.T) {
	v := fastjson.MustParse(`{"eventSource":"x.amazonaws.com","eventName":"Y","errorMessage":"kept",
	"requestParameters":{"masterUserPassword":"S1","userData":{"value":"S2"},"webIdentityToken":"S3","roleArn":"kept","x":{"password":"S4"},
		"environment":{"variables":{"ANY":"S5"}},"containerDefinitions":[{"name":"kept","environment":[{"name":"kept","value":"S6"}]}],
		"url":"https://b.s3.amazonaws.com/k?X-Amz-Credential=kept&X-Amz-Security-Token=S7&X-Amz-Signature=S8"},
	"responseElements":{"credentials":{"accessKeyId":"kept","sessionToken":"S9","secretAccessKey":"S10"},"accessKey":{"accessKeyId":"kept"}},
	"userAgent":"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.S11S11S11S11"}`)
	if !decoder.Strip(v, &fastjson.Arena{}) {
		t.Fatal("nothing was stripped")
	}
	out := v.String()
	if strings.Contains(out, `S1`) || strings.Contains(out, `"S`) || strings.Contains(out, "=S") {
		t.Errorf("secrets are left: %s", out)
	}
	if n := strings.Count(out, "kept"); n != 7 {
		t.Errorf("%d of 7 harmless values are left: %s", n, out)
	}
	if decoder.Strip(v, &fastjson.Arena{}) {
		t.Error("stripping again changes something")
	}
}

// FuzzCloudTrail: nothing that comes from outside makes the decoder panic, and
// an event keeps its ID when it is stripped.
func FuzzCloudTrail(f *testing.F) {
	connectortest.FuzzDecoder(
		f, []connector.Decoder{decoder},
		assumed,
		`{"Records":[{"eventSource":"sts.amazonaws.com","eventName":"AssumeRole","responseElements":{"credentials":{"accessKeyId":"A","sessionToken":"s"}},"requestParameters":{"durationSeconds":"900"}}]}`,
		`{"message":"{\"eventSource\":\"a\",\"eventName\":\"b\",\"userIdentity\":{\"arn\":\"arn:aws:sts::1:assumed-role/\"}}"}`,
		`{"eventSource":"iam.amazonaws.com","eventName":"CreateAccessKey","userIdentity":{"type":"IAMUser"},"resources":["x",{"ARN":"arn:aws:s3:::"}]}`,
	)
}

func BenchmarkDecoder(b *testing.B) { connectortest.BenchmarkDecoder(b, decoder, assumed) }
