package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// scheme knows just the types that are read or written.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme,
		certificatesv1.AddToScheme, admissionv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

var codecs = serializer.NewCodecFactory(scheme)

// How fast requests may follow each other. A scan of a large cluster makes a few
// hundred, of which at most four at a time wait for an answer; client-go's
// default of 5 a second would draw them out to minutes, and the server's own
// priority and fairness is there to slow us down.
const (
	requestsPerSecond = 200
	requestBurst      = 400
)

// How much a page may hold, and how long it may take.
const (
	pageLimit      = 250
	bulkyPageLimit = 50       // of objects of up to a megabyte, at first
	bulkyPageBytes = 16 << 20 // what the next page may hold, if its objects are like the last one's
	pageTimeout    = 90 * time.Second
)

// client talks to one API server. It is safe for concurrent use.
type client struct {
	config *rest.Config
	http   *http.Client

	mu      sync.Mutex
	clients map[schema.GroupVersion]*rest.RESTClient
}

func newClient(config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(requestsPerSecond, requestBurst)
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.WarningHandler = rest.NoWarnings{}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.NegotiatedSerializer = codecs.WithoutConversion()
	config.Timeout = 0 // each request has its own
	if config.UserAgent == "" {
		config.UserAgent = "remit"
	}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return hinting{rt} })
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &client{config: config, http: httpClient, clients: map[schema.GroupVersion]*rest.RESTClient{}}, nil
}

// of returns the client of one group and version.
func (c *client) of(gv schema.GroupVersion) (*rest.RESTClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.clients[gv]; known != nil {
		return known, nil
	}
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	made, err := rest.RESTClientForConfigAndClient(config, c.http)
	if err != nil {
		return nil, err
	}
	c.clients[gv] = made
	return made, nil
}

// quiet keeps client-go from writing to standard error what is handled here.
func quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.Discard())
}

// page lists one page, calls each for its objects, and returns the token of the
// next page and the version of the list.
func (c *client) page(ctx context.Context, l *listing, namespace string, options metav1.ListOptions, each func(runtime.Object)) (next, version string, err error) {
	rc, err := c.of(l.groupVersion())
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), pageTimeout)
	defer cancel()
	request := rc.Get().Resource(l.resource).VersionedParams(&options, metav1.ParameterCodec).MaxRetries(0)
	if namespace != "" {
		request.Namespace(namespace)
	}
	newList := listTypes[l.kind]
	if l.metadataOnly || newList == nil {
		return jsonPage(ctx, request, l, each)
	}
	list := newList()
	if err := request.Do(ctx).Into(list); err != nil {
		return "", "", err
	}
	m, err := apimeta.ListAccessor(list)
	if err != nil {
		return "", "", err
	}
	err = apimeta.EachListItem(list, func(o runtime.Object) error {
		each(o)
		return nil
	})
	return m.GetContinue(), m.GetResourceVersion(), err
}

// jsonPage lists what there is no protocol buffer for.
func jsonPage(ctx context.Context, request *rest.Request, l *listing, each func(runtime.Object)) (next, version string, err error) {
	accept := "application/json"
	if l.metadataOnly {
		accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	}
	result := request.SetHeader("Accept", accept).Do(ctx)
	if err := result.Error(); err != nil { // Raw would not read the server's reason
		return "", "", err
	}
	body, err := result.Raw()
	if err != nil {
		return "", "", err
	}
	var list struct {
		Metadata metav1.ListMeta   `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return "", "", fmt.Errorf("the list of %s cannot be read: %w", l.resource, err)
	}
	for _, raw := range list.Items {
		o := l.emptyObject()
		if err := json.Unmarshal(raw, o); err != nil {
			return "", "", fmt.Errorf("an object of the list of %s cannot be read: %w", l.resource, err)
		}
		each(o)
	}
	return list.Metadata.Continue, list.Metadata.ResourceVersion, nil
}

func (l *listing) emptyObject() runtime.Object {
	if l.metadataOnly {
		return &metav1.PartialObjectMetadata{}
	}
	return l.newObject()
}

// change is one event of a watch.
type change struct {
	kind   watch.EventType
	object runtime.Object
}

// follow watches a collection from a resource version and calls each for every
// event, until the server ends the watch (nil), ctx ends or it breaks.
func (c *client) follow(ctx context.Context, l *listing, namespace string, options metav1.ListOptions, each func(change) error) error {
	rc, err := c.of(l.groupVersion())
	if err != nil {
		return err
	}
	ctx = quiet(ctx)
	options.Watch = true
	options.AllowWatchBookmarks = true
	request := rc.Get().Resource(l.resource).VersionedParams(&options, metav1.ParameterCodec).MaxRetries(0)
	if namespace != "" {
		request.Namespace(namespace)
	}
	if l.metadataOnly || listTypes[l.kind] == nil {
		return jsonFollow(ctx, request, l, each)
	}
	w, err := request.Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			ch := change{kind: e.Type, object: e.Object}
			if e.Type == watch.Error {
				return statusError(e.Object)
			}
			if err := each(ch); err != nil {
				return err
			}
		}
	}
}

func statusError(o runtime.Object) error {
	return apierrors.FromObject(o)
}

func jsonFollow(ctx context.Context, request *rest.Request, l *listing, each func(change) error) error {
	accept := "application/json"
	if l.metadataOnly {
		accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	}
	body, err := request.SetHeader("Accept", accept).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { body.Close() }) // a read of a silent stream does not look at ctx
	defer stop()
	decoder := json.NewDecoder(body)
	for {
		var event struct {
			Type   watch.EventType `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if event.Type == watch.Error {
			var s metav1.Status
			if err := json.Unmarshal(event.Object, &s); err != nil {
				return err
			}
			return statusError(&s)
		}
		o := l.emptyObject()
		if err := json.Unmarshal(event.Object, o); err != nil {
			return err
		}
		if err := each(change{kind: event.Type, object: o}); err != nil {
			return err
		}
	}
}

// get reads JSON from a path that is no collection.
func (c *client) get(ctx context.Context, path string, into any) error {
	rc, err := c.of(schema.GroupVersion{Version: "v1"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), pageTimeout)
	defer cancel()
	result := rc.Get().AbsPath(path).SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	body, err := result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// hint carries what a server says about when to come back, past client-go,
// which forgets the header when the body is an error of its own.
type hint struct {
	mu    sync.Mutex
	delay time.Duration
}

type hintKey struct{}

func (h *hint) take() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.delay
	h.delay = 0
	return d
}

// hinting notes the header Retry-After (RFC 9110, section 10.2.3).
type hinting struct{ next http.RoundTripper }

func (h hinting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := h.next.RoundTrip(r)
	if err != nil || resp.StatusCode < 400 {
		return resp, err
	}
	if note, ok := r.Context().Value(hintKey{}).(*hint); ok {
		if d := retryAfter(resp.Header.Get("Retry-After"), time.Now()); d > 0 {
			note.mu.Lock()
			note.delay = d
			note.mu.Unlock()
		}
	}
	return resp, nil
}

// WrappedRoundTripper lets client-go see the transport inside.
func (h hinting) WrappedRoundTripper() http.RoundTripper { return h.next }

func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 3600)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(at.Sub(now), time.Hour)
	}
	return 0
}
