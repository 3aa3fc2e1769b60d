//go:build unix

package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Config returns a configuration that authenticates with a new client
// certificate of the cluster's CA, as that user in those groups. It panics if
// it cannot make one, which no input makes happen.
func (c *Cluster) Config(user string, groups ...string) *rest.Config {
	config, err := c.config(user, groups...)
	if err != nil {
		panic(err)
	}
	return config
}

func (c *Cluster) config(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := c.ca.issueClient(user, groups)
	if err != nil {
		return nil, err
	}
	config := c.anonymous()
	config.CertData, config.KeyData = cert, key
	return config, nil
}

// TokenConfig returns a configuration that authenticates with a bearer token.
func (c *Cluster) TokenConfig(token string) *rest.Config {
	config := c.anonymous()
	config.BearerToken = token
	return config
}

// ServiceAccountConfig returns a configuration that authenticates with a new
// token of a service account, which the administrator asks for; see Token.
func (c *Cluster) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	status, err := c.Token(ctx, namespace, name, TokenOptions{})
	if err != nil {
		return nil, err
	}
	return c.TokenConfig(status.Token), nil
}

// TokenOptions say what token to ask for. The zero value is one bound to
// nothing, for an hour, for the API server.
type TokenOptions struct {
	Audiences []string
	Lifetime  time.Duration
	// Bound is the Pod, Node or Secret whose deletion ends the token.
	Bound *authenticationv1.BoundObjectReference
}

func (o TokenOptions) request() *authenticationv1.TokenRequest {
	if o.Lifetime == 0 {
		o.Lifetime = time.Hour
	}
	seconds := int64(o.Lifetime / time.Second)
	return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: o.Audiences, ExpirationSeconds: &seconds, BoundObjectRef: o.Bound,
	}}
}

// Token mints a token of a service account as the administrator. (A kubelet
// mints the tokens of its pods itself: [Node.PodToken].)
func (c *Cluster) Token(ctx context.Context, namespace, name string, o TokenOptions) (*authenticationv1.TokenRequestStatus, error) {
	return Mint(ctx, c.Client, namespace, name, o)
}

// Mint mints a token of a service account with the credential of that client,
// which then is the parent of the token.
func Mint(ctx context.Context, client kubernetes.Interface, namespace, name string, o TokenOptions) (*authenticationv1.TokenRequestStatus, error) {
	r, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, o.request(), metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("mint a token of the service account %s/%s: %w", namespace, name, err)
	}
	return &r.Status, nil
}

// WriteKubeconfig writes a kubeconfig for a configuration of this package, for
// programs that want a file.
func WriteKubeconfig(path string, config *rest.Config) error { return writeKubeconfig(path, config) }

// FromAddress returns a copy of a configuration whose connections come from
// that address, which the audit log then shows in sourceIPs. Every address in
// 127.0.0.0/8 works on Linux without being set up, so pods, nodes and an
// attacker can have addresses of their own.
func FromAddress(config *rest.Config, ip string) *rest.Config {
	config = rest.CopyConfig(config)
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	local := net.ParseIP(ip)
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if local == nil {
			return nil, fmt.Errorf("connect from %q: not an IP address", ip)
		}
		d := *dialer
		d.LocalAddr = &net.TCPAddr{IP: local}
		return d.DialContext(ctx, network, address)
	}
	return config
}

// anonymous knows the server and no credential. Its client-side rate limit is
// off: the tests are what is to set the pace.
func (c *Cluster) anonymous() *rest.Config {
	return &rest.Config{
		Host:            c.URL,
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem},
	}
}
