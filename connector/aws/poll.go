package aws

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// PollerOptions say which bucket is read, and as whom.
type PollerOptions struct {
	// Bucket is the name of the bucket to which trails deliver.
	Bucket string

	// Prefix is the trail's prefix within the bucket, before AWSLogs; empty
	// when the trail has none.
	Prefix string

	// Organization is the ID of an organization (o-…), to read its trail only.
	Organization string

	// Accounts are the numbers of the accounts that are read, Regions the
	// regions; all that the bucket has when empty. Each pair of them costs a
	// request to list at every poll.
	Accounts, Regions []string

	// Region is where the bucket is. When it is empty it is asked for, which
	// needs the right s3:GetBucketLocation.
	Region string

	// Endpoint is the address of an S3 server other than AWS's own: https, or
	// http to this machine.
	Endpoint string

	// CredentialsFile is the path of a credentials file as the AWS tools have
	// it, which is read at every poll, and Profile the section in it, "default"
	// when empty. Without a file the login is looked for where the AWS tools
	// look: the environment, ~/.aws, and the role of the workload or machine.
	CredentialsFile, Profile string

	// LookBack is how long after the time in its name a file may appear, an
	// hour when it is 0.
	LookBack time.Duration
}

// Poller reads the files that CloudTrail delivers to a bucket. It implements
// [connector.Poller].
// Source: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-examples.html
// and cloudtrail-find-log-files.html beside it.
type Poller struct {
	op, native, endpoint, logs string
	secure                     bool
	lookBack                   time.Duration
	o                          PollerOptions
	chain                      *credentials.Credentials // nil with a file

	// How many files a poll hands out, and how many new ones of an account and
	// region it lists.
	files, listed int
	// How many bytes a file may have without its compression.
	opened int64
}

var _ connector.Poller = (*Poller)(nil)

const (
	pollLookBack = time.Hour

	// A file of CloudTrail's has at most about 50 MB.
	fileBytes     = 64 << 20
	fileBytesOpen = 128 << 20 // without its compression

	listTimeout = time.Minute
	fileTimeout = 5 * time.Minute

	// How long to wait when S3 asks for it; it does not say how long.
	waitLimited = time.Minute
	waitBroken  = 30 * time.Second
)

var (
	accountPattern      = regexp.MustCompile(`^[0-9]{12}$`)
	organizationPattern = regexp.MustCompile(`^o-[a-z0-9]{4,32}$`)
	regionPattern       = regexp.MustCompile(`^[a-z0-9-]{4,32}$`)
	// filePattern is of a file's name behind account and region, the time at
	// which it was delivered and what makes it unique.
	filePattern = regexp.MustCompile(`^([0-9]{8}T[0-9]{4}Z)_[0-9A-Za-z]{1,64}\.json\.gz$`)
)

const minute = "20060102T1504Z"

// s3Transport gives up on a server that does not begin to answer.
var s3Transport = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = listTimeout
	t.DisableCompression = true // or what is stored compressed would be opened on the way
	return t
}()

// NewPoller checks the options; it asks nothing yet. Errors are [remit.Invalid].
func NewPoller(o PollerOptions) (*Poller, error) {
	const op = "poll CloudTrail"
	p := &Poller{op: op + " in the bucket " + o.Bucket, endpoint: "s3.amazonaws.com", secure: true, lookBack: o.LookBack, o: o, files: 100, listed: 1000, opened: fileBytesOpen}
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/ ") {
		return nil, remit.Errorf(remit.Invalid, op, "name the bucket")
	}
	if o.Organization != "" && !organizationPattern.MatchString(o.Organization) {
		return nil, remit.Errorf(remit.Invalid, p.op, "%q is no ID of an organization, such as o-a1b2c3d4e5", o.Organization)
	}
	for _, account := range o.Accounts {
		if !accountPattern.MatchString(account) {
			return nil, remit.Errorf(remit.Invalid, p.op, "%q is no number of an account, which has 12 digits", account)
		}
	}
	for _, region := range o.Regions {
		if !regionPattern.MatchString(region) {
			return nil, remit.Errorf(remit.Invalid, p.op, "%q is no region, such as eu-central-1", region)
		}
	}
	switch {
	case o.LookBack < 0:
		return nil, remit.Errorf(remit.Invalid, p.op, "the look-back is negative")
	case o.LookBack == 0:
		p.lookBack = pollLookBack
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return nil, remit.Errorf(remit.Invalid, p.op, "the endpoint is no address of a server: give https://HOST")
		}
		p.endpoint, p.secure = u.Host, u.Scheme == "https"
		if ip := net.ParseIP(u.Hostname()); !p.secure && !(u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())) {
			return nil, remit.Errorf(remit.Invalid, p.op, "the endpoint %s does not begin with https://: the log would be readable on the way", u.Redacted())
		}
	}
	if p.logs = strings.Trim(o.Prefix, "/"); p.logs != "" {
		p.logs += "/"
	}
	p.logs += "AWSLogs/"
	p.native = cmp.Or(o.Organization, o.Bucket)
	if len(o.Accounts) == 1 {
		p.native = o.Accounts[0]
	}
	if o.CredentialsFile == "" {
		p.chain = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{Profile: o.Profile},
			&credentials.IAM{Region: o.Region, Client: &http.Client{Transport: s3Transport, Timeout: 10 * time.Second}},
		})
	}
	return p, nil
}

// Source is that of [CloudTrail].
func (p *Poller) Source() connector.Source { return CloudTrail{}.Source() }

// Native is the account, where one is read; else the organization, else the
// bucket: events name their account themselves.
func (p *Poller) Native() string { return p.native }

// position is where a poller is. Files are listed, for each account and region,
// from Since on; those that were handed out already are the ones in Taken: by
// the folder of account and region, the names behind both. Since is a look-back
// before the newest of them.
type position struct {
	Since time.Time           `json:"since"`
	Taken map[string][]string `json:"taken,omitempty"`
}

// logFile is a file to read.
type logFile struct {
	key, folder, name string
	at                time.Time
	size              int64
}

// Poll hands out up to a hundred files, in the order of the times in their
// names. A file that cannot be read, for it is broken or archived, is reported
// at every poll while the look-back lasts and holds up no other. See
// [connector.Poller].
func (p *Poller) Poll(ctx context.Context, stored []byte, since time.Time, emit func(raw []byte) error) (next []byte, more bool, err error) {
	at := position{Since: since.UTC().Truncate(time.Minute)}
	if len(stored) > 0 {
		at.Since = time.Time{}
		if err := connector.ReadPosition(p.op, stored, &at); err != nil {
			return stored, false, err
		}
		if at.Since.IsZero() {
			return stored, false, remit.Errorf(remit.Invalid, p.op, "the stored position cannot be read: it does not say from when")
		}
	}
	if at.Taken == nil {
		at.Taken = map[string][]string{}
	}
	client, err := p.client()
	if err != nil {
		return stored, false, err
	}
	files, more, err := p.newFiles(ctx, client, &at)
	if err != nil {
		return stored, false, err
	}
	if len(files) > p.files {
		files, more = files[:p.files], true
	}
	var newest time.Time
	var broken error // the first one
	for _, file := range files {
		err := p.handOut(ctx, client, file, emit)
		var bad *brokenFile
		if errors.As(err, &bad) {
			broken = cmp.Or(broken, error(remit.Errorf(remit.Invalid, p.op, "%w", bad)))
			continue
		}
		if err != nil {
			at.forget(newest.Add(-p.lookBack))
			return connector.WritePosition(at), false, err
		}
		newest = file.at
		at.Taken[file.folder] = append(at.Taken[file.folder], file.name)
	}
	at.forget(newest.Add(-p.lookBack))
	return connector.WritePosition(at), more && broken == nil, broken
}

// forget moves the position up to a time.
func (at *position) forget(before time.Time) {
	if before = before.Truncate(time.Minute); !before.After(at.Since) {
		return
	}
	at.Since = before
	limit := before.Format(minute)
	for folder, names := range at.Taken {
		names = slices.DeleteFunc(names, func(name string) bool { return name < limit })
		if at.Taken[folder] = names; len(names) == 0 {
			delete(at.Taken, folder)
		}
	}
}

// client is made at every poll, so that the login's file is read again.
func (p *Poller) client() (*minio.Client, error) {
	login := p.chain
	from := "the environment, ~/.aws, or a role of this workload or machine"
	if login == nil {
		from = "the file " + p.o.CredentialsFile
		if _, err := os.Stat(p.o.CredentialsFile); err != nil {
			return nil, remit.Errorf(remit.Unauthorized, p.op, "read the login: %w", err)
		}
		login = credentials.NewFileAWSCredentials(p.o.CredentialsFile, p.o.Profile)
	}
	// The cause may repeat lines of the file.
	if v, err := login.GetWithContext(nil); err != nil || v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return nil, remit.Errorf(remit.Unauthorized, p.op, "there is no login in %s", from)
	}
	client, err := minio.New(p.endpoint, &minio.Options{
		Creds: login, Secure: p.secure, Region: p.o.Region, Transport: s3Transport, MaxRetries: 1,
	})
	if err != nil {
		return nil, remit.Errorf(remit.Invalid, p.op, "%w", err)
	}
	return client, nil
}

// newFiles lists the files that were not handed out yet, ordered by their times
// as far as all accounts and regions have been listed; more says that there are
// others behind them.
func (p *Poller) newFiles(ctx context.Context, client *minio.Client, at *position) (files []logFile, more bool, err error) {
	folders, err := p.folders(ctx, client)
	if err != nil {
		return nil, false, err
	}
	var horizon time.Time // up to which all were listed; zero: the present
	for _, folder := range folders {
		listed, whole, err := p.list(ctx, client, folder, at)
		if err != nil {
			return nil, false, err
		}
		files = append(files, listed...)
		if !whole {
			more = true
			if last := listed[len(listed)-1].at; horizon.IsZero() || last.Before(horizon) {
				horizon = last
			}
		}
	}
	if !horizon.IsZero() {
		files = slices.DeleteFunc(files, func(f logFile) bool { return f.at.After(horizon) })
	}
	slices.SortFunc(files, func(a, b logFile) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.key, b.key)) })
	return files, more, nil
}

// folder is where one account's files of one region are.
type folder struct{ path, account, region string }

// folders are those of the accounts and regions: AWSLogs/[o-…/]ACCOUNT/CloudTrail/REGION/.
func (p *Poller) folders(ctx context.Context, client *minio.Client) (folders []folder, err error) {
	roots := []string{p.logs}
	if p.o.Organization != "" {
		roots[0] += p.o.Organization + "/"
	}
	accounts := map[string]string{} // by path
	for len(roots) > 0 {
		root := roots[0]
		roots = roots[1:]
		if len(p.o.Accounts) > 0 && p.o.Organization != "" {
			for _, account := range p.o.Accounts {
				accounts[root+account+"/CloudTrail/"] = account
			}
			continue
		}
		names, err := p.subfolders(ctx, client, root)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			switch {
			case accountPattern.MatchString(name):
				if len(p.o.Accounts) == 0 || slices.Contains(p.o.Accounts, name) {
					accounts[root+name+"/CloudTrail/"] = name
				}
			case root == p.logs && organizationPattern.MatchString(name):
				roots = append(roots, root+name+"/")
			}
		}
	}
	for path, account := range accounts {
		regions := p.o.Regions
		if len(regions) == 0 {
			if regions, err = p.subfolders(ctx, client, path); err != nil {
				return nil, err
			}
		}
		for _, region := range regions {
			if regionPattern.MatchString(region) {
				folders = append(folders, folder{path + region + "/", account, region})
			}
		}
	}
	return folders, nil
}

// subfolders returns the names of the folders in a folder.
func (p *Poller) subfolders(ctx context.Context, client *minio.Client, path string) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	for object := range client.ListObjectsIter(ctx, p.o.Bucket, listOptions(path, "", false)) {
		if object.Err != nil {
			return nil, p.failed(ctx, object.Err, "s3:ListBucket on arn:aws:s3:::"+p.o.Bucket)
		}
		if name, ok := strings.CutSuffix(strings.TrimPrefix(object.Key, path), "/"); ok {
			names = append(names, name)
		}
	}
	return names, p.ended(ctx)
}

func listOptions(prefix, startAfter string, recursive bool) minio.ListObjectsOptions {
	owner := false
	return minio.ListObjectsOptions{Prefix: prefix, StartAfter: startAfter, Recursive: recursive, FetchOwner: &owner}
}

// list returns the files of one account and region that were not handed out
// yet; whole says that these are all.
func (p *Poller) list(ctx context.Context, client *minio.Client, f folder, at *position) (files []logFile, whole bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	taken := map[string]bool{}
	for _, name := range at.Taken[f.path] {
		taken[name] = true
	}
	head := f.account + "_CloudTrail_" + f.region + "_"
	after := f.path + at.Since.Format("2006/01/02/") + head + at.Since.Format(minute)
	for object := range client.ListObjectsIter(ctx, p.o.Bucket, listOptions(f.path, after, true)) {
		if object.Err != nil {
			return nil, false, p.failed(ctx, object.Err, "s3:ListBucket on arn:aws:s3:::"+p.o.Bucket)
		}
		base := object.Key[strings.LastIndexByte(object.Key, '/')+1:]
		name, ok := strings.CutPrefix(base, head)
		match := filePattern.FindStringSubmatch(name)
		if !ok || match == nil || taken[name] {
			continue
		}
		t, err := time.Parse(minute, match[1])
		if err != nil {
			continue
		}
		files = append(files, logFile{key: object.Key, folder: f.path, name: name, at: t, size: object.Size})
		if len(files) == p.listed {
			return files, false, nil
		}
	}
	return files, true, p.ended(ctx)
}

// ended is the error of a context that has ended: a list that is cut off by it
// ends without an error, as if it were whole.
func (p *Poller) ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return p.failed(ctx, ctx.Err(), "")
}

// brokenFile is a file of which nothing can be made, now or later.
type brokenFile struct{ key, what string }

func (b *brokenFile) Error() string {
	return fmt.Sprintf("the file %q %s: restore it or take it away; until then, and for the length of the look-back, this is reported", b.key, b.what)
}

// handOut reads a file and hands it out.
func (p *Poller) handOut(ctx context.Context, client *minio.Client, file logFile, emit func(raw []byte) error) error {
	if file.size > fileBytes {
		return &brokenFile{file.key, fmt.Sprintf("has %d bytes, more than CloudTrail writes", file.size)}
	}
	fetching, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	right := "s3:GetObject on arn:aws:s3:::" + p.o.Bucket + "/" + p.logs + "*, and kms:Decrypt on the key where there is one"
	core := minio.Core{Client: client}
	body, _, _, err := core.GetObject(fetching, p.o.Bucket, file.key, minio.GetObjectOptions{})
	var packed []byte
	if err == nil {
		packed, err = io.ReadAll(io.LimitReader(body, file.size+1))
		_ = body.Close()
	}
	if err != nil {
		switch minio.ToErrorResponse(err).Code {
		case minio.NoSuchKey:
			return nil // was taken away between the list and now
		case "InvalidObjectState":
			return &brokenFile{file.key, "is archived"}
		}
		return p.failed(fetching, err, right)
	}
	if int64(len(packed)) != file.size {
		return remit.Errorf(remit.Unavailable, p.op, "%q has come with %d bytes, not %d", file.key, len(packed), file.size)
	}
	opened, err := gunzip(packed, p.opened)
	if err != nil {
		return &brokenFile{file.key, "is no gzip file that can be opened (" + err.Error() + ")"}
	}
	v, err := fastjson.ParseBytes(opened)
	if err != nil || v.Get("Records") == nil || v.Get("Records").Type() != fastjson.TypeArray {
		return &brokenFile{file.key, "does not have the form of CloudTrail's"}
	}
	if len(v.GetArray("Records")) == 0 {
		return nil
	}
	return emit(opened)
}

func gunzip(packed []byte, most int64) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	opened, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(opened)) > most {
		return nil, errors.New("it is too long")
	}
	return opened, nil
}

// failed gives an error of S3 its kind.
// Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
func (p *Poller) failed(ctx context.Context, err error, right string) error {
	if ctx.Err() != nil {
		return remit.Errorf(remit.Unavailable, p.op, "%w", context.Cause(ctx))
	}
	var said minio.ErrorResponse
	if !errors.As(err, &said) {
		return remit.Errorf(remit.Unavailable, p.op, "%s: %w", p.endpoint, err)
	}
	code := printable(said.Code)
	switch said.Code {
	case minio.AccessDenied, "AllAccessDisabled", "AccountProblem":
		return remit.Errorf(remit.Forbidden, p.op, "the login needs the right %s: %s", right, printable(said.Message))
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidSecurity", "NotSignedUp":
		return remit.Errorf(remit.Unauthorized, p.op, "the login is not accepted (%s)", code)
	case minio.NoSuchBucket:
		return remit.Errorf(remit.NotFound, p.op, "there is no such bucket at %s", p.endpoint)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return remit.Errorf(remit.Invalid, p.op, "the bucket is in another region (%s): name its region", code)
	}
	switch status := said.StatusCode; {
	case status == http.StatusUnauthorized:
		return remit.Errorf(remit.Unauthorized, p.op, "the login is not accepted (%s)", code)
	case status == http.StatusForbidden:
		return remit.Errorf(remit.Forbidden, p.op, "the login needs the right %s (%s)", right, code)
	case status == http.StatusTooManyRequests, said.Code == "SlowDown":
		return &connector.RetryLater{Err: remit.Errorf(remit.Unavailable, p.op, "%s asks to wait (%s)", p.endpoint, code), After: waitLimited}
	case status >= 500:
		return &connector.RetryLater{Err: remit.Errorf(remit.Unavailable, p.op, "%s does not work at the moment (%s)", p.endpoint, code), After: waitBroken}
	case status >= 400 && said.Code != "RequestTimeout" && said.Code != "RequestTimeTooSkewed":
		return remit.Errorf(remit.Invalid, p.op, "%s answers %s", p.endpoint, code)
	}
	return remit.Errorf(remit.Unavailable, p.op, "%s answers %s", p.endpoint, code)
}

// printable makes a line of what a server has said.
func printable(said string) string {
	const longest = 300
	said = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, said)
	if runes := []rune(said); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return said
}
