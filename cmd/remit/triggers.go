package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"remit"
	"remit/leak"
	"remit/server"
	"remit/server/token"
	"remit/server/trigger"
	"remit/ssf"
)

// signalConfig is an identity provider whose signals are taken in.
type signalConfig struct {
	Name     string           `yaml:"name"`
	Issuer   string           `yaml:"issuer"`
	Audience string           `yaml:"audience"`
	JWKS     string           `yaml:"jwks"`      // https://…; "" is found by the issuer's metadata
	JWKSFile string           `yaml:"jwks_file"` // in place of it
	CAFile   string           `yaml:"ca_file"`   // of the authority that the issuer's certificates are of
	Systems  []string         `yaml:"systems"`   // whose identities the issuer names by more than mail addresses
	MaxAge   span             `yaml:"max_age"`
	Push     bool             `yaml:"push"`
	Poll     signalPollConfig `yaml:"poll"`
}

// signalPollConfig is where an identity provider is asked.
type signalPollConfig struct {
	Endpoint  string `yaml:"endpoint"`
	TokenFile string `yaml:"token_file"`
	Every     span   `yaml:"every"`
}

// transmitConfig is where Remit's own signals go.
type transmitConfig struct {
	Issuer    string           `yaml:"issuer"` // the URL of this Remit, as receivers reach it
	Receivers []receiverConfig `yaml:"receivers"`
}

// receiverConfig is a receiver that signals are pushed to.
type receiverConfig struct {
	Name      string   `yaml:"name"`
	Audience  string   `yaml:"audience"`
	Endpoint  string   `yaml:"endpoint"`
	TokenFile string   `yaml:"token_file"`
	CAFile    string   `yaml:"ca_file"`
	Events    []string `yaml:"events"` // the last parts of their URIs; all when empty
}

// leaksConfig is who reports leaked secrets by webhook.
type leaksConfig struct {
	GitHub githubLeaksConfig `yaml:"github"`
}

type githubLeaksConfig struct {
	WebhookSecretFile string `yaml:"webhook_secret_file"`
	TokenFile         string `yaml:"token_file"` // with which the secrets of alerts are read
	API               string `yaml:"api"`
	Partner           bool   `yaml:"partner"`
	KeysURL           string `yaml:"keys_url"`
	CAFile            string `yaml:"ca_file"`
}

// plainName is what a name must be that becomes a part of a path.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkTriggers makes paths whole and refuses what cannot be.
func (c *config) checkTriggers(dir string) error {
	invalid := func(format string, args ...any) error { return remit.Errorf(remit.Invalid, "", format, args...) }
	secure := func(address string) bool {
		u, err := url.Parse(address)
		return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.Fragment == ""
	}
	names := map[string]bool{}
	for i := range c.Signals {
		s := &c.Signals[i]
		for _, path := range []*string{&s.JWKSFile, &s.CAFile, &s.Poll.TokenFile} {
			resolve(dir, path)
		}
		at := "signals[" + s.Name + "]"
		switch {
		case !plainName.MatchString(s.Name) || names[s.Name]:
			return invalid("signals[%d]: give it a name of its own, of letters, digits, dots, dashes and underscores", i)
		case s.Issuer == "":
			return invalid("%s: name its issuer, exactly as its tokens do", at)
		case s.Audience == "":
			return invalid("%s: name the audience that its tokens are for: the provider shows it with the stream", at)
		case s.JWKS != "" && s.JWKSFile != "":
			return invalid("%s: jwks or jwks_file, not both", at)
		case s.JWKS != "" && !secure(s.JWKS), s.JWKS == "" && s.JWKSFile == "" && !secure(s.Issuer):
			return invalid("%s: its keys are read from an https:// URL: set jwks, or jwks_file", at)
		case !s.Push && s.Poll.Endpoint == "":
			return invalid("%s: say how its signals come: push: true, or poll.endpoint", at)
		case s.Poll.Endpoint != "" && !secure(s.Poll.Endpoint):
			return invalid("%s: poll.endpoint: only https:// is asked", at)
		case s.Push && c.Listen.Address == "":
			return invalid("%s: push: nothing listens: set listen.address", at)
		}
		names[s.Name] = true
	}
	c.Transmit.Issuer = strings.TrimSuffix(c.Transmit.Issuer, "/")
	if len(c.Transmit.Receivers) > 0 && c.Transmit.Issuer == "" || c.Transmit.Issuer != "" && !secure(c.Transmit.Issuer) {
		return invalid("transmit: issuer: write the https:// URL of this Remit, as receivers reach it")
	}
	if c.Transmit.Issuer != "" && c.Listen.Address == "" {
		return invalid("transmit: nothing listens: set listen.address, for receivers read the keys there")
	}
	clear(names)
	for i := range c.Transmit.Receivers {
		r := &c.Transmit.Receivers[i]
		resolve(dir, &r.TokenFile)
		resolve(dir, &r.CAFile)
		switch {
		case !plainName.MatchString(r.Name) || names[r.Name]:
			return invalid("transmit.receivers[%d]: give it a name of its own, of letters, digits, dots, dashes and underscores", i)
		case r.Audience == "":
			return invalid("transmit.receivers[%s]: name the audience that it wants in its tokens", r.Name)
		case !secure(r.Endpoint):
			return invalid("transmit.receivers[%s]: endpoint: only an https:// URL is pushed to", r.Name)
		}
		for n, event := range r.Events {
			at := slices.IndexFunc(ssf.Supported, func(uri string) bool { return strings.HasSuffix(uri, "/"+event) })
			if at < 0 {
				return invalid("transmit.receivers[%s]: events[%d]: %q is not sent: use session-revoked, credential-change, account-disabled or account-enabled", r.Name, n, event)
			}
			r.Events[n] = ssf.Supported[at]
		}
		names[r.Name] = true
	}
	g := &c.Leaks.GitHub
	for _, path := range []*string{&g.WebhookSecretFile, &g.TokenFile, &g.CAFile} {
		resolve(dir, path)
	}
	switch {
	case (g.Partner || g.WebhookSecretFile != "") && c.Listen.Address == "":
		return invalid("leaks.github: nothing listens: set listen.address")
	case g.KeysURL != "" && !secure(g.KeysURL):
		return invalid("leaks.github: keys_url: keys are read from an https:// URL only")
	case g.TokenFile != "":
		if _, err := leak.NewAlertReader(g.API, g.TokenFile); err != nil {
			return invalid("leaks.github: api: %w", err)
		}
	}
	return nil
}

// clientOf makes a client that also accepts the certificates of an authority. It
// follows no redirects: what is asked for is configured, and goes nowhere else.
func clientOf(caFile string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, remit.Errorf(remit.Invalid, "read certificates", "%w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, remit.Errorf(remit.Invalid, "read certificates", "%s holds no certificate in PEM", caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// triggers is everything that takes in, from outside, what must cause a response,
// and that tells others of responses.
type triggers struct {
	data     *dataDir
	config   *config
	tokens   *token.Tokens
	log      *slog.Logger
	announce func([]remit.Finding)
	metrics  *server.Metrics // nil when nothing listens

	receiver    *ssf.Receiver
	sources     []*ssf.Source
	desk        *leak.Desk
	github      *trigger.GitHub
	transmitter *ssf.Transmitter // nil when nothing is sent
	pushes      []ssf.Push
	pollers     []*ssf.Poll
}

func openTriggers(ctx context.Context, data *dataDir, c *config, tokens *token.Tokens, announce func([]remit.Finding), log *slog.Logger) (*triggers, error) {
	t := &triggers{data: data, config: c, tokens: tokens, log: log, announce: announce}
	digester, err := leak.NewDigester(data.Key)
	if err != nil {
		return nil, err
	}
	t.desk = &leak.Desk{
		Store: data.Store, Digester: digester, Log: log, Announced: t.announced(ctx),
		Observe: func(scanner string, matched bool) {
			outcome := "unmatched"
			if matched {
				outcome = "matched"
			}
			// Names of scanners come from outside, and may be any.
			if scanner != leak.GitHub {
				scanner = "leaks"
			}
			t.observe(scanner, outcome)
		},
	}
	t.receiver = &ssf.Receiver{
		Store: data.Store, Log: log, Names: c.people.Names, Announced: t.announced(ctx),
		Observe: func(source string, o ssf.Outcome) { t.observe("signals "+source, string(o)) },
	}
	for _, s := range c.Signals {
		client, err := clientOf(s.CAFile)
		if err != nil {
			return nil, err
		}
		source := &ssf.Source{
			Name: s.Name, Issuer: s.Issuer, Audience: s.Audience, Systems: s.Systems, MaxAge: time.Duration(s.MaxAge),
			Keys: &ssf.Keys{URL: s.JWKS, File: s.JWKSFile, Issuer: s.Issuer, Client: client},
		}
		t.sources = append(t.sources, source)
		if s.Poll.Endpoint != "" {
			t.pollers = append(t.pollers, &ssf.Poll{
				Source: source, Receiver: t.receiver, Log: log, Endpoint: s.Poll.Endpoint, TokenFile: s.Poll.TokenFile,
				Client: client, Every: time.Duration(s.Poll.Every),
			})
		}
	}
	if err := t.openGitHub(c.Leaks.GitHub); err != nil {
		return nil, err
	}
	return t, t.openTransmitter(ctx)
}

func (t *triggers) openGitHub(c githubLeaksConfig) error {
	g := trigger.GitHub{Desk: t.desk, Log: t.log}
	if c.Partner {
		client, err := clientOf(c.CAFile)
		if err != nil {
			return err
		}
		g.Keys = &leak.GitHubKeys{URL: c.KeysURL, Client: client}
	}
	if c.WebhookSecretFile != "" {
		g.Secret = func() ([]byte, error) {
			text, err := os.ReadFile(c.WebhookSecretFile)
			if text = bytes.TrimSpace(text); err == nil && len(text) == 0 {
				err = errors.New("the file of the webhook's secret is empty")
			}
			return text, err
		}
		// A mistake is told at the start, not with the first delivery.
		if _, err := g.Secret(); err != nil {
			return remit.Errorf(remit.Invalid, "leaks.github.webhook_secret_file", "%w", err)
		}
	}
	if c.TokenFile != "" {
		var err error
		if g.Alerts, err = leak.NewAlertReader(c.API, c.TokenFile); err != nil {
			return err
		}
	}
	t.github = trigger.NewGitHub(g)
	return nil
}

func (t *triggers) openTransmitter(ctx context.Context) error {
	c := &t.config.Transmit
	if c.Issuer == "" {
		return nil
	}
	signer, err := ssf.OpenSigner(t.data.path)
	if err != nil {
		return err
	}
	t.transmitter = &ssf.Transmitter{Issuer: c.Issuer, Signer: signer, Store: t.data.Store, Log: t.log}
	if err := t.transmitter.Open(ctx); err != nil {
		return err
	}
	for _, r := range c.Receivers {
		client, err := clientOf(r.CAFile)
		if err != nil {
			return err
		}
		if err := t.transmitter.OpenStream(ctx, r.Name, r.Audience, r.Events); err != nil {
			return err
		}
		t.pushes = append(t.pushes, ssf.Push{Receiver: r.Name, Endpoint: r.Endpoint, TokenFile: r.TokenFile, Client: client})
	}
	return nil
}

// polls says whether something is asked for signals.
func (t *triggers) polls() bool { return len(t.pollers) > 0 }

func (t *triggers) observe(origin, outcome string) {
	if t.metrics != nil {
		t.metrics.Triggered(origin, outcome)
	}
}

// announced has findings answered at once.
func (t *triggers) announced(ctx context.Context) func([]remit.ID) {
	return func(ids []remit.ID) {
		for some := range slices.Chunk(ids, 500) {
			findings, _, err := t.data.Store.Findings(ctx, remit.FindingFilter{IDs: some}, remit.PageRequest{Limit: 1000})
			if err != nil {
				t.log.Error("findings are answered at the next look", "error", err)
				return
			}
			t.announce(findings)
		}
	}
}

// mount adds the ways in to the listener.
func (t *triggers) mount(mux *http.ServeMux) {
	push := trigger.NewPush(trigger.Push{Receiver: t.receiver, Tokens: t.tokens, Log: t.log})
	for i, s := range t.config.Signals {
		if s.Push {
			mux.Handle(trigger.SignalsPath+s.Name, push.Handler(t.sources[i]))
		}
	}
	if t.github.Secret != nil {
		mux.HandleFunc(trigger.GitHubHookPath, t.github.Hook)
	}
	if t.github.Keys != nil {
		mux.HandleFunc(trigger.GitHubPartnerPath, t.github.Partner)
	}
	if t.transmitter != nil {
		streams := trigger.Streams{Transmitter: t.transmitter, Tokens: t.tokens, Log: t.log}
		streams.Mount(mux)
	}
	mux.Handle(trigger.ReportPath, &trigger.Reports{
		Tokens: t.tokens, Store: t.data.Store, Log: t.log, Subject: t.subject, Announced: t.announced(context.Background()),
		Observe: func(client string) { t.observe("client "+client, "finding") },
	})
}

// subject finds what a report names.
func (t *triggers) subject(ctx context.Context, system, name string) (out trigger.Concerned, err error) {
	q, err := subjectOf(ctx, t.data, system, name, identityFirst)
	if err != nil {
		return out, err
	}
	out = trigger.Concerned{System: q.System, Subject: q.Subject, Native: q.Credential}
	if q.Subject.ID != q.IdentityID {
		out.Identity = q.IdentityID
	}
	return out, nil
}

// start has everything run until ctx ends.
func (t *triggers) start(ctx context.Context, work *errgroup.Group) {
	work.Go(func() error { return t.receiver.Keep(ctx) })
	work.Go(func() error { return t.desk.Keep(ctx, time.Minute) })
	for _, p := range t.pollers {
		work.Go(func() error { return p.Run(ctx) })
	}
	if t.transmitter == nil {
		return
	}
	work.Go(func() error { return t.transmitter.Run(ctx) })
	for _, p := range t.pushes {
		work.Go(func() error { return t.transmitter.Deliver(ctx, p) })
	}
}
