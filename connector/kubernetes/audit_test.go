package kubernetes

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

const mintEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"7a1","stage":"ResponseComplete",
"requestURI":"/api/v1/namespaces/shop/serviceaccounts/api/token","verb":"create",
"user":{"username":"system:serviceaccount:shop:api","extra":{"authentication.kubernetes.io/credential-id":["JTI=parent"],
"authentication.kubernetes.io/pod-name":["api-0"],"authentication.kubernetes.io/node-name":["node-a"]}},
"sourceIPs":["198.51.100.7","10.0.0.9"],"userAgent":"curl/8","objectRef":{"resource":"serviceaccounts","namespace":"shop","name":"api","subresource":"token"},
"responseStatus":{"code":201},"requestReceivedTimestamp":"2026-11-23T14:05:06.123456Z",
"requestObject":{"spec":{"expirationSeconds":7200,"audiences":["vault"],"boundObjectRef":{"kind":"Pod","name":"api-0"}}},
"responseObject":{"kind":"TokenRequest","status":{"token":"SECRET-TOKEN-VALUE","expirationTimestamp":"2026-11-23T16:05:06Z"}},
"annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=child","authorization.k8s.io/decision":"allow",
"authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"minter/shop\" of Role \"minter\" to ServiceAccount \"api/shop\""}}`

func decodeAudit(t *testing.T, text string) (*connector.Event, error) {
	t.Helper()
	v, err := fastjson.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !Audit.Recognizes(v) {
		t.Fatalf("not recognised: %s", text)
	}
	e := new(connector.Event)
	return e, Audit.Decode(v, new(connector.Interner), e)
}

// TestAuditMint reads everything that lineage is made of out of one event.
func TestAuditMint(t *testing.T) {
	e, err := decodeAudit(t, mintEvent)
	if err != nil {
		t.Fatal(err)
	}
	account := remit.Ref{Kind: "ServiceAccount", Namespace: "shop", Name: "api"}
	pod := remit.Ref{Kind: "Pod", Namespace: "shop", Name: "api-0"}
	a := e.Activity
	if a.Actor != account || a.Credential != "JTI=parent" || a.CredentialType != remit.ShortLivedToken || a.Bound != pod || a.Node != "node-a" {
		t.Errorf("who: %+v", a)
	}
	if a.Address != "10.0.0.9" {
		t.Errorf("the address is %s: only the last is not the client's claim", a.Address)
	}
	if a.Action != "create" || a.Resource != (remit.Ref{Kind: "serviceaccounts/token", Namespace: "shop", Name: "api"}) || !a.Write || a.Outcome != remit.Allowed {
		t.Errorf("what: %+v", a)
	}
	if a.Binding != (remit.Ref{Kind: "RoleBinding", Namespace: "shop", Name: "minter"}) {
		t.Errorf("binding: %+v", a.Binding)
	}
	m := a.Minted
	if m.Credential != "JTI=child" || m.For != account || m.Bound != pod || m.Lifetime != 2*time.Hour || !m.Expires.Equal(time.Date(2026, 11, 23, 16, 5, 6, 0, time.UTC)) {
		t.Errorf("minted: %+v", m)
	}
	if !a.Time.Equal(time.Date(2026, 11, 23, 14, 5, 6, 123456000, time.UTC)) {
		t.Errorf("time: %s", a.Time)
	}
}

func TestAuditForms(t *testing.T) {
	for _, test := range []struct {
		name, event string
		ignored     bool
		check       func(a *remit.Activity) bool
	}{
		{
			"denied", `{"kind":"Event","auditID":"1","verb":"list","user":{"username":"jane"},"objectRef":{"resource":"secrets"},"responseStatus":{"code":403}}`, false,
			func(a *remit.Activity) bool { return a.Outcome == remit.Denied && a.Type == remit.Human },
		},
		{
			"failed", `{"kind":"Event","auditID":"1","verb":"get","user":{"username":"jane"},"objectRef":{"resource":"secrets"},"responseStatus":{"code":404}}`, false,
			func(a *remit.Activity) bool { return a.Outcome == remit.Failed },
		},
		{"first stage", `{"kind":"Event","auditID":"1","stage":"RequestReceived","verb":"get","user":{"username":"jane"}}`, true, nil},
		{
			"impersonation", `{"kind":"Event","auditID":"1","verb":"get","user":{"username":"jane"},"impersonatedUser":{"username":"system:serviceaccount:a:b"},"objectRef":{"resource":"pods"}}`, false,
			func(a *remit.Activity) bool {
				return a.Actor.Name == "jane" && a.As == (remit.Ref{Kind: "ServiceAccount", Namespace: "a", Name: "b"})
			},
		},
		{
			"legacy token", `{"kind":"Event","auditID":"1","verb":"get","user":{"username":"system:serviceaccount:a:b"},"objectRef":{"resource":"pods"},"annotations":{"authentication.k8s.io/legacy-token":"x"}}`, false,
			func(a *remit.Activity) bool {
				return a.Credential == "legacy-token=a/b" && a.CredentialType == remit.StaticToken
			},
		},
		{
			"group and subresource", `{"kind":"Event","auditID":"1","verb":"patch","user":{"username":"jane"},"objectRef":{"resource":"deployments","apiGroup":"apps","subresource":"scale"}}`, false,
			func(a *remit.Activity) bool { return a.Resource.Kind == "deployments/scale.apps" },
		},
		{
			"URL", `{"kind":"Event","auditID":"1","verb":"get","user":{"username":"system:anonymous"},"requestURI":"/version?x=1"}`, false,
			func(a *remit.Activity) bool { return a.Resource == (remit.Ref{Kind: "URL", Name: "/version"}) },
		},
		{
			"AKS", `{"category":"kube-audit","properties":{"log":"{\"kind\":\"Event\",\"verb\":\"get\",\"user\":{\"username\":\"jane\"},\"objectRef\":{\"resource\":\"pods\"}}"}}`, false,
			func(a *remit.Activity) bool { return a.Principal == "jane" && a.Action == "get" },
		},
		{
			"GKE", `{"insertId":"i","timestamp":"2026-11-23T00:00:00Z","protoPayload":{"serviceName":"k8s.io","methodName":"io.k8s.core.v1.pods.exec.create","resourceName":"core/v1/namespaces/ns/pods/p/exec","authenticationInfo":{"principalEmail":"jane@example.com"},"requestMetadata":{"callerIp":"192.0.2.1"},"authorizationInfo":[{"granted":false}]}}`, false,
			func(a *remit.Activity) bool {
				return a.Resource == (remit.Ref{Kind: "pods/exec", Namespace: "ns", Name: "p"}) && a.Outcome == remit.Denied && a.Address == "192.0.2.1"
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := decodeAudit(t, test.event)
			if test.ignored {
				if err != connector.ErrIgnored {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !test.check(&e.Activity) {
				t.Errorf("%+v", e.Activity)
			}
		})
	}
}

// TestAuditStrip takes out whatever authenticates, and says where it was.
func TestAuditStrip(t *testing.T) {
	const secret = "SECRET-TOKEN-VALUE"
	for name, text := range map[string]string{
		"minted token":   mintEvent,
		"secret":         `{"kind":"Event","responseObject":{"kind":"Secret","data":{"password":"` + secret + `"}}}`,
		"list":           `{"kind":"Event","responseObject":{"kind":"SecretList","items":[{"kind":"Secret","data":{"k":"` + secret + `"}}]}}`,
		"patch":          `{"kind":"Event","requestObject":{"stringData":{"k":"` + secret + `"}}}`,
		"token review":   `{"kind":"Event","requestObject":{"kind":"TokenReview","spec":{"token":"` + secret + `"}}}`,
		"environment":    `{"kind":"Event","requestObject":{"kind":"Pod","spec":{"containers":[{"env":[{"name":"DB_PASSWORD","value":"` + secret + `"}]}]}}}`,
		"command":        `{"kind":"Event","requestURI":"/api/v1/namespaces/a/pods/b/exec?command=psql&command=--password&command=` + secret + `"}`,
		"wrapped by AKS": `{"category":"kube-audit","properties":{"log":"{\"responseObject\":{\"kind\":\"Secret\",\"data\":{\"k\":\"` + secret + `\"}}}"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			v := fastjson.MustParse(text)
			if !Audit.Strip(v, new(fastjson.Arena)) {
				t.Error("says that nothing was changed")
			}
			out := connector.AppendJSON(nil, v)
			if bytes.Contains(out, []byte(secret)) || !strings.Contains(string(out), connector.Stripped) || fastjson.ValidateBytes(out) != nil {
				t.Errorf("%s", out)
			}
		})
	}
}

func FuzzAudit(f *testing.F) {
	f.Add([]byte(mintEvent))
	f.Add([]byte(`{"items":[{"kind":"Event","verb":"get","user":{"username":"x"}}]}`))
	f.Add([]byte(`{"protoPayload":{"serviceName":"k8s.io","resourceName":"core/v1/a"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := fastjson.ParseBytes(text)
		if err != nil {
			return
		}
		Audit.Recognizes(v)
		for _, one := range Audit.Split(v) {
			var e connector.Event
			_ = Audit.Decode(one, new(connector.Interner), &e)
			Audit.Strip(one, new(fastjson.Arena))
			if out := connector.AppendJSON(nil, one); fastjson.ValidateBytes(out) != nil {
				t.Fatalf("no JSON after Strip: %q", out)
			}
		}
	})
}
