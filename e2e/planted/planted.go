// Package planted fills a real cluster with workloads as they are found in the
// wild: some run as they should, and some have one known problem each. It is the
// ground truth that scans are measured against, and what the demo recording was
// made from.
package planted

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"

	"remit"
)

//go:embed base.yaml
var base string

//go:embed problems.yaml
var problems string

// Problem is one thing that is wrong in the planted cluster.
type Problem struct {
	Problem string `json:"problem"` // what is wrong, in words

	// Findings are the policies of which any one names the problem.
	Findings []string `json:"findings"`

	// Subject is what the finding is expected on; Also is another thing
	// that it may be reported on with as much right.
	Subject remit.Ref  `json:"subject"`
	Also    *remit.Ref `json:"also,omitempty"`

	Objects string `json:"objects"`
}

// Cluster is a healthy cluster with known problems in it.
type Cluster struct {
	Healthy  []*unstructured.Unstructured
	Problems []Problem
	objects  [][]*unstructured.Unstructured // of each problem
	canaries []string
}

// New renders the planted cluster with fresh keys, tokens and certificates.
func New() (*Cluster, error) {
	var c Cluster
	forge := newForge()
	var err error
	if c.Healthy, err = render(forge, "base.yaml", base); err != nil {
		return nil, err
	}
	if err := sigsyaml.UnmarshalStrict([]byte(problems), &c.Problems); err != nil {
		return nil, fmt.Errorf("read problems.yaml: %w", err)
	}
	for _, p := range c.Problems {
		objects, err := render(forge, p.Problem, p.Objects)
		if err != nil {
			return nil, err
		}
		c.objects = append(c.objects, objects)
	}
	c.canaries = forge.secrets
	return &c, nil
}

// Objects lists every object, the healthy ones first, in an order in which they
// can be created.
func (c *Cluster) Objects() []*unstructured.Unstructured {
	return append(slices.Clone(c.Healthy), slices.Concat(c.objects...)...)
}

// Canaries are the secret values that were planted: none of them may ever
// leave a connector.
func (c *Cluster) Canaries() []string { return slices.Clone(c.canaries) }

// Plant creates every object in a cluster, as an administrator, and approves the
// certificate requests that are meant to be approved (those not named pending).
func (c *Cluster) Plant(ctx context.Context, config *rest.Config) error {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 200, 400
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, o := range c.Objects() {
		if err := create(ctx, client, mapper, o); err != nil {
			return fmt.Errorf("plant %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	return approve(ctx, config, c.Objects())
}

func create(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, o *unstructured.Unstructured) error {
	mapping, err := mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	_, err = resource.Create(ctx, o, metav1.CreateOptions{FieldManager: "planted"})
	if apierrors.IsAlreadyExists(err) { // as a namespace's default account is
		return nil
	}
	return err
}

func approve(ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	requests := client.CertificatesV1().CertificateSigningRequests()
	for _, o := range objects {
		if o.GetKind() != "CertificateSigningRequest" || strings.HasPrefix(o.GetName(), "pending") {
			continue
		}
		request, err := requests.Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		request.Status.Conditions = append(request.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Planted",
		})
		if _, err := requests.UpdateApproval(ctx, o.GetName(), request, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("approve %s: %w", o.GetName(), err)
		}
	}
	return nil
}

// render expands a template and parses the YAML documents in it.
func render(f *forge, name, text string) ([]*unstructured.Unstructured, error) {
	parsed, err := template.New(name).Funcs(f.functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, nil); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	var objects []*unstructured.Unstructured
	for documents := yaml.NewYAMLOrJSONDecoder(&out, 4096); ; {
		var o unstructured.Unstructured
		switch err := documents.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("decode %s: %w", name, err)
		case len(o.Object) > 0:
			objects = append(objects, &o)
		}
	}
}
