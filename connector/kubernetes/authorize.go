package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fastjson"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"remit"
)

// Authorizer answers the authorization webhook of one cluster, by which the API
// server asks about each request (authorization.k8s.io/v1 SubjectAccessReview,
// https://kubernetes.io/docs/reference/access-authn-authz/webhook/). It denies
// what a refused credential does, and has no opinion of anything else: it allows
// nobody anything.
//
// What is refused stands in the Secret that the [Enforcer] writes. The
// Authorizer keeps it in memory and follows it with a login that may list and
// watch this one Secret; when the cluster is lost, what is known stays refused.
// Safe for concurrent use; an answer takes no lock.
type Authorizer struct {
	client *client
	login  string
	log    *slog.Logger

	// refused are the credentials as the API server names them; nil until the
	// list has been read for the first time.
	refused atomic.Pointer[map[string]struct{}]
}

// OpenAuthorizer connects to the cluster that the configuration names, as [Open]
// does. It makes no request.
func OpenAuthorizer(cfg Config) (*Authorizer, error) {
	c, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	return &Authorizer{client: c.client, login: c.login, log: c.cfg.Logger}, nil
}

// OpenAuthorizerRESTConfig connects with a configuration of client-go, for tests
// and for programs that have one. A nil log discards.
func OpenAuthorizerRESTConfig(config *rest.Config, log *slog.Logger) (*Authorizer, error) {
	const login = "the given configuration"
	client, err := newClient(config)
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, "open kubeconfig", "%s cannot be used: %w", login, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Authorizer{client: client, login: login, log: log}, nil
}

// watchPatience is shorter than that of the inventory's watches: as long as this
// one is lost, what is newly refused goes on.
var watchPatience = retryPolicy{base: 100 * time.Millisecond, cap: 5 * time.Second, longest: 30 * time.Second}

// Run follows what is refused until ctx ends, whose error it returns. It outlasts
// every failure.
func (a *Authorizer) Run(ctx context.Context) error {
	lost := false
	for failures := 0; ; {
		note := &hint{}
		began := time.Now()
		err := a.follow(context.WithValue(ctx, hintKey{}, note), func() {
			if lost {
				a.log.Info("what is refused is followed again", "login", a.login)
			}
			failures, lost = 0, false
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && time.Since(began) > time.Second {
			continue // the server ended the watch, as asked
		}
		if err != nil && !lost {
			lost = true
			a.log.Warn("what is refused cannot be followed: what is known stays refused, what comes later is not known",
				"login", a.login, "error", reason(explain("follow what is refused", err, a.client.config.Host, a.login)))
		}
		failures++
		if err := sleep(ctx, watchPatience.delay(failures, note.take())); err != nil {
			return err
		}
	}
}

// follow lists and watches, until the watch ends. current is called whenever the
// list is known to be so.
func (a *Authorizer) follow(ctx context.Context, current func()) error {
	only := metav1.ListOptions{FieldSelector: "metadata.name=" + containedName}
	l := listingOf["Secret"]
	data := map[string][]byte(nil)
	_, version, err := a.client.page(ctx, l, enforceSystemNamespace, only, func(o runtime.Object) { data = containedData(o) })
	if err != nil {
		return err
	}
	a.keep(data)
	current()
	seconds := int64(watchSeconds + rand.N(watchSeconds))
	only.ResourceVersion, only.TimeoutSeconds = version, &seconds
	return a.client.follow(ctx, l, enforceSystemNamespace, only, func(c change) error {
		switch c.kind {
		case watch.Added, watch.Modified:
			a.keep(containedData(c.object))
		case watch.Deleted:
			a.keep(nil)
		}
		return nil
	})
}

// containedData is what the Secret of contained credentials holds; nil of any other
// object.
func containedData(o runtime.Object) map[string][]byte {
	if s, ok := o.(*corev1.Secret); ok && s.Name == containedName && s.Namespace == enforceSystemNamespace {
		return s.Data
	}
	return nil
}

func (a *Authorizer) keep(data map[string][]byte) {
	refused := refusedIn(data)
	a.refused.Store(&refused)
}

// refusedIn are the credentials that the entries of the Secret refuse.
func refusedIn(data map[string][]byte) map[string]struct{} {
	refused := map[string]struct{}{}
	for key := range data {
		name, ok := strings.CutPrefix(key, holdRefuse+".")
		if ok && name != "" && !strings.HasPrefix(name, accountKey) {
			refused[credentialOfKey(name)] = struct{}{}
		}
	}
	return refused
}

// Ready says whether the list has been read. Until then ServeHTTP answers 503.
func (a *Authorizer) Ready() bool { return a.refused.Load() != nil }

// probeCredential is refused by every Authorizer: so a plan finds out whether the
// cluster asks one. No token has such an ID, as those of tokens are UUIDs.
const probeCredential = "JTI=remit-probe"

// refusal begins the reason that is given for each denial.
const refusal = "Remit has contained this credential: it is refused everything. Sign in with another, or ask whoever runs Remit."

// The answers. That neither allowed nor denied is set is "no opinion".
var (
	answerDenied    = []byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","status":{"allowed":false,"denied":true,"reason":` + string(mustJSON(refusal)) + `}}` + "\n")
	answerNoOpinion = []byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","status":{"allowed":false}}` + "\n")
)

// maxReview is the largest review that is read, in bytes. Groups of a login and
// selectors of a request make it long; an API server takes no more than a megabyte
// of headers.
const maxReview = 2 << 20

// ServeHTTP answers one SubjectAccessReview. It looks at nothing but the
// credential; that the API server asks, and nobody else, is for the caller to see
// to.
//
// A failure is no answer of 500, 504 or 429, nor one with Retry-After: after these
// the API server asks again and again, and the request waits for seconds.
func (a *Authorizer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refused := a.refused.Load()
	if refused == nil {
		http.Error(w, "what is refused has not been read from the cluster yet", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		http.Error(w, fmt.Sprintf("the review has more than %d bytes", maxReview), http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		http.Error(w, "the review ended early", http.StatusBadRequest)
		return
	}
	denied, err := denies(body, *refused)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := answerNoOpinion
	if denied {
		answer = answerDenied
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // the API server may have given up
}

// reviews reuse their memory: thousands may be asked a second, while requests of a
// whole cluster wait.
var reviews fastjson.ParserPool

// denies says whether a SubjectAccessReview is about one of the refused
// credentials: who asks has one or, if he has none that the API server can tell,
// none.
func denies(body []byte, refused map[string]struct{}) (bool, error) {
	const op = "read review"
	parser := reviews.Get()
	defer reviews.Put(parser)
	review, err := parser.ParseBytes(body)
	if err != nil {
		return false, remit.Errorf(remit.Invalid, op, "it is no JSON: %w", err)
	}
	text := func(field string) string { return string(review.GetStringBytes(field)) }
	spec := review.Get("spec")
	if text("apiVersion") != "authorization.k8s.io/v1" || text("kind") != "SubjectAccessReview" || !isType(spec, fastjson.TypeObject) {
		return false, remit.Errorf(remit.Invalid, op,
			"it is no SubjectAccessReview of authorization.k8s.io/v1: set subjectAccessReviewVersion: v1 in the API server's authorization configuration")
	}
	extra := spec.Get("extra")
	if absent(extra) {
		return false, nil
	}
	if !isType(extra, fastjson.TypeObject) {
		return false, remit.Errorf(remit.Invalid, op, "spec.extra is no object")
	}
	credentials := extra.Get(extraCredential)
	if absent(credentials) {
		return false, nil
	}
	if !isType(credentials, fastjson.TypeArray) {
		return false, remit.Errorf(remit.Invalid, op, "spec.extra[%q] is no list", extraCredential)
	}
	denied := false
	for _, c := range credentials.GetArray() {
		if !isType(c, fastjson.TypeString) {
			return false, remit.Errorf(remit.Invalid, op, "spec.extra[%q] holds what is no text", extraCredential)
		}
		name := c.GetStringBytes()
		if _, ok := refused[string(name)]; ok || string(name) == probeCredential {
			denied = true
		}
	}
	return denied, nil
}

func absent(v *fastjson.Value) bool { return v == nil || v.Type() == fastjson.TypeNull }

func isType(v *fastjson.Value, t fastjson.Type) bool { return v != nil && v.Type() == t }

// AuthorizationConfiguration is the file with which an API server asks Remit
// (--authorization-config, apiserver.config.k8s.io/v1, Kubernetes 1.32 and later).
// kubeconfig is the path, as the API server sees it, of the file that says where
// Remit is and how to sign in there; except are the users by whose names the
// cluster knows Remit's own logins, of whom it is never asked.
func AuthorizationConfiguration(kubeconfig string, except []string) []byte {
	conditions := []struct{ why, expression string }{
		{"Only who has a credential that can be told from others.", `'` + extraCredential + `' in request.extra`},
		{"Administrators of the cluster can always repair it.", `!('` + groupMasters + `' in request.groups)`},
		{"Nor the parts of the cluster itself, without which it would not work.", `!('` + groupNodes + `' in request.groups)`},
		{"", `!request.user.startsWith('system:') || request.user.startsWith('` + accountPrefix + `')`},
	}
	if len(except) > 0 {
		conditions = append(conditions, struct{ why, expression string }{"Nor Remit itself.", `!(request.user in ` + string(mustJSON(except)) + `)`})
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Has the API server ask Remit about each request, so that Remit can refuse single
# credentials. Start it with --authorization-config=FILE in place of
# --authorization-mode; it reads changes of the file without a restart.
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
# Remit has to be the first: what it denies, nobody after it can allow. It allows
# nothing itself.
- type: Webhook
  name: remit
  webhook:
    connectionInfo:
      type: KubeConfigFile
      kubeConfigFile: %s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    # As long as Remit does not answer, requests go on as if it were not asked.
    # With Deny they are refused: then nothing works while Remit is away.
    failurePolicy: NoOpinion
    timeout: 1s
    # Answers must not be kept, or a refusal comes so much later. No TTL may be
    # zero; from Kubernetes 1.34 on cacheUnauthorizedRequests: false says the same.
    authorizedTTL: 1ms
    unauthorizedTTL: 1ms
    matchConditions:
`, mustJSON(kubeconfig))
	for _, c := range conditions {
		if c.why != "" {
			fmt.Fprintf(&b, "    # %s\n", c.why)
		}
		fmt.Fprintf(&b, "    - expression: %s\n", mustJSON(c.expression))
	}
	b.WriteString(`# What --authorization-mode was before.
- type: Node
  name: node
- type: RBAC
  name: rbac
`)
	return []byte(b.String())
}
