//go:build unix

package aws

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"remit"
	"remit/connector"
	"remit/connector/connectortest"
	"remit/e2e/s3"
)

const bucketName = "trails"

// bucket is a real S3 server's, with a prefix for each trail.
type bucket struct {
	t      *testing.T
	server *s3.Server
	client *minio.Client
	proxy  *httputil.ReverseProxy
	trails int
}

func newBucket(t *testing.T) *bucket {
	t.Helper()
	b := &bucket{t: t, server: s3.Start(t)}
	u, err := url.Parse(b.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	// The Host header stays as it came: it is part of what is signed.
	b.proxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = u.Scheme, u.Host, r.In.Host
	}}
	b.client, err = minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(b.server.AccessKey, b.server.SecretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.client.MakeBucket(t.Context(), bucketName, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bucket) put(key string, content []byte) {
	if _, err := b.client.PutObject(context.Background(), bucketName, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{DisableMultipart: true}); err != nil {
		panic(err)
	}
}

func (b *bucket) login(string) string {
	return fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", b.server.AccessKey, b.server.SecretKey)
}

func zipped(content string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write([]byte(content))
	_ = w.Close()
	return out.Bytes()
}

// trail delivers files as CloudTrail does.
type trail struct {
	*bucket
	prefix string
	files  int
}

func (b *bucket) trail() *trail {
	b.trails++
	t := &trail{bucket: b, prefix: fmt.Sprintf("trail-%d/", b.trails)}
	// What else lies beside the files.
	for _, key := range []string{
		"AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2026/11/25/111122223333_CloudTrail-Digest_us-east-1_trail_us-east-1_20261125T0000Z.json.gz",
		"AWSLogs/111122223333/CloudTrail/us-east-1/9999/01/01/readme.txt",
		"AWSLogs/111122223333/CloudTrail/us-east-1/9999/01/01/111122223333_CloudTrail_us-east-1_99990101T9999Z_0000000000000000.json.gz",
		"AWSLogs/tmp/CloudTrail/us-east-1/9999/01/01/x_CloudTrail_us-east-1_99990101T0000Z_0000000000000000.json.gz",
		"elsewhere",
	} {
		t.put(t.prefix+key, nil)
	}
	return t
}

func event(id, account, region string, at time.Time) string {
	return fmt.Sprintf(`{"Records":[{"eventVersion":"1.08","eventID":%q,"eventTime":%q,"eventSource":"ec2.amazonaws.com","eventName":"DescribeInstances","awsRegion":%q,"userIdentity":{"type":"IAMUser","accountId":%q,"userName":"a"},"recipientAccountId":%q}]}`,
		id, at.UTC().Format(time.RFC3339), region, account, account)
}

func (t *trail) key(account, region string, at time.Time) string {
	folder := account
	if account == "444455556666" {
		folder = "o-a1b2c3d4e5/" + account
	}
	t.files++
	// The last part has no order.
	return fmt.Sprintf("%sAWSLogs/%s/CloudTrail/%s/%s/%s_CloudTrail_%s_%s_%016X.json.gz",
		t.prefix, folder, region, at.Format("2006/01/02"), account, region, at.Format(minute), uint64(t.files)*0x9E3779B97F4A7C15)
}

func (t *trail) Add(id string, at, _ time.Time) {
	place := [...][2]string{{"111122223333", "us-east-1"}, {"111122223333", "eu-central-1"}, {"444455556666", "us-east-1"}}[t.files%3]
	t.put(t.key(place[0], place[1], at), zipped(event(id, place[0], place[1], at)))
}

func (t *trail) PageSize(int) {} // the server's is part of what is signed
func (t *trail) Expire()      {} // there are no cursors

func (t *trail) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.proxy.ServeHTTP(w, r) }

func (t *trail) poller(url, file string) (*Poller, error) {
	return NewPoller(PollerOptions{Bucket: bucketName, Prefix: t.prefix, Endpoint: url, Region: "us-east-1", CredentialsFile: file})
}

func TestPoller(t *testing.T) {
	b := newBucket(t)
	var last *trail
	suite := connectortest.PollSuite{
		Decoder: CloudTrail{},
		API:     func() connectortest.LogAPI { last = b.trail(); return last },
		Poller:  func(url, file string) (connector.Poller, error) { return last.poller(url, file) },
		Login:   b.login,
		Late:    55 * time.Minute, Resolution: time.Minute,
	}
	if !testing.Short() { // each event is a file that a real server stores
		t.Run("all at once", func(t *testing.T) { connectortest.Poll(t, suite) })
	}
	suite.Poller = func(url, file string) (connector.Poller, error) {
		p, err := last.poller(url, file)
		p.files, p.listed = 3, 2
		return p, err
	}
	t.Run("a few at a time", func(t *testing.T) { connectortest.Poll(t, suite) })
}

// asked polls once, straight from the server, and returns the IDs.
func asked(t *testing.T, p *Poller, position []byte) (ids []string, next []byte, more bool, err error) {
	t.Helper()
	next, more, err = p.Poll(t.Context(), position, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), func(raw []byte) error {
		ids = append(ids, connectortest.Decode(t, CloudTrail{}, string(raw)).ID)
		return nil
	})
	return ids, next, more, err
}

// A file that nobody can read must not hold up the others, and must be heard of.
func TestBrokenFiles(t *testing.T) {
	b := newBucket(t)
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(b.login("")), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	good := zipped(event("good", "111122223333", "us-east-1", at))
	for what, content := range map[string][]byte{
		"empty":         nil,
		"no gzip":       []byte("no gzip"),
		"cut":           good[:len(good)-9],
		"damaged":       append(bytes.Clone(good[:len(good)-8]), "damaged!"...),
		"no JSON":       zipped(`{"Records":[`),
		"no records":    zipped(`{"records":[]}`),
		"another thing": zipped(`[1]`),
		"a bomb":        zipped(`{"Records":[` + strings.Repeat(" ", 1<<20) + `]}`),
	} {
		t.Run(what, func(t *testing.T) {
			trail := b.trail()
			p, err := trail.poller(b.server.URL, file)
			if err != nil {
				t.Fatal(err)
			}
			p.opened = 1 << 20
			trail.put(trail.key("111122223333", "us-east-1", at), content)
			trail.put(trail.key("111122223333", "us-east-1", at.Add(time.Minute)), good)
			trail.put(trail.key("111122223333", "us-east-1", at.Add(time.Minute)), zipped(`{"Records":[]}`))
			ids, position, more, err := asked(t, p, nil)
			if len(ids) != 1 || more || remit.KindOf(err) != remit.Invalid || !strings.Contains(err.Error(), "20261125T1000Z") {
				t.Fatalf("%v, %v, %v", ids, more, err)
			}
			ids, position, _, err = asked(t, p, position)
			if len(ids) != 0 || remit.KindOf(err) != remit.Invalid {
				t.Fatalf("%v, %v", ids, err)
			}
			// Past the look-back it is left behind.
			trail.put(trail.key("111122223333", "us-east-1", at.Add(2*time.Hour)), good)
			_, position, _, _ = asked(t, p, position)
			if ids, _, more, err = asked(t, p, position); len(ids) != 0 || more || err != nil {
				t.Fatalf("%v, %v, %v", ids, more, err)
			}
		})
	}
}

func TestLogins(t *testing.T) {
	b := newBucket(t)
	trail := b.trail()
	trail.Add("one", time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC), time.Time{})
	file := filepath.Join(t.TempDir(), "credentials")
	p, err := trail.poller(b.server.URL, file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "a-secret-of-no-account"
	for _, content := range []string{
		strings.ReplaceAll(b.login(""), b.server.SecretKey, secret),
		"[default]\n" + secret,
		"[default]\naws_secret_access_key = " + secret,
		"[other]\naws_access_key_id = a\naws_secret_access_key = " + secret,
	} {
		write(content)
		_, _, _, err := asked(t, p, nil)
		if remit.KindOf(err) != remit.Unauthorized || strings.Contains(fmt.Sprint(err), secret) || strings.Contains(fmt.Sprint(err), b.server.SecretKey) {
			t.Errorf("%v", err)
		}
	}
	// The right one is taken up without a new poller.
	write(b.login(""))
	if ids, _, _, err := asked(t, p, nil); len(ids) != 1 || err != nil {
		t.Error(ids, err)
	}
	p.o.Bucket = "another-bucket"
	if _, _, _, err := asked(t, p, nil); remit.KindOf(err) != remit.NotFound {
		t.Error(err)
	}
}

func TestChoices(t *testing.T) {
	b := newBucket(t)
	trail := b.trail()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(b.login("")), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	for _, id := range []string{"us", "eu", "org"} { // see Add
		trail.Add(id, at, at)
		at = at.Add(time.Minute)
	}
	for _, test := range []struct {
		set    func(*PollerOptions)
		want   string
		native string
	}{
		{func(*PollerOptions) {}, "us eu org", bucketName},
		{func(o *PollerOptions) { o.Accounts = []string{"111122223333"} }, "us eu", "111122223333"},
		{func(o *PollerOptions) { o.Accounts = []string{"444455556666"} }, "org", "444455556666"},
		{func(o *PollerOptions) { o.Organization = "o-a1b2c3d4e5" }, "org", "o-a1b2c3d4e5"},
		{func(o *PollerOptions) {
			o.Organization, o.Accounts = "o-a1b2c3d4e5", []string{"444455556666", "777788889999"}
		}, "org", "o-a1b2c3d4e5"},
		{func(o *PollerOptions) { o.Regions = []string{"us-east-1", "sa-east-1"} }, "us org", bucketName},
		{func(o *PollerOptions) { o.Prefix = "nothing/here" }, "", bucketName},
	} {
		o := PollerOptions{Bucket: bucketName, Prefix: trail.prefix, Endpoint: b.server.URL, Region: "us-east-1", CredentialsFile: file}
		test.set(&o)
		p, err := NewPoller(o)
		if err != nil {
			t.Fatal(err)
		}
		ids, _, _, err := asked(t, p, nil)
		if strings.Join(ids, " ") != test.want || err != nil || p.Native() != test.native {
			t.Errorf("%+v: %v, %v, %s", o, ids, err, p.Native())
		}
	}
}

func TestPollerOptions(t *testing.T) {
	for _, bad := range []PollerOptions{
		{},
		{Bucket: "a/b"},
		{Bucket: "b", Organization: "acme"},
		{Bucket: "b", Accounts: []string{"123"}},
		{Bucket: "b", Regions: []string{"../x"}},
		{Bucket: "b", LookBack: -1},
		{Bucket: "b", Endpoint: "http://s3.example"},
		{Bucket: "b", Endpoint: "https://user:password@s3.example"},
		{Bucket: "b", Endpoint: "https://s3.example/bucket"},
	} {
		if _, err := NewPoller(bad); remit.KindOf(err) != remit.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// emit's error comes back as it is.
func TestEmitFails(t *testing.T) {
	b := newBucket(t)
	trail := b.trail()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(b.login("")), 0o600); err != nil {
		t.Fatal(err)
	}
	trail.Add("one", time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC), time.Time{})
	p, err := trail.poller(b.server.URL, file)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	_, more, err := p.Poll(t.Context(), nil, time.Time{}, func([]byte) error { return full })
	if !errors.Is(err, full) || more {
		t.Error(more, err)
	}
}
