package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/connector"
	"remit/connector/file"
	"remit/connector/kubernetes"
	"remit/connector/openbao"
	"remit/connector/postgres"
	"remit/report"
	"remit/response"
)

// rotationConfig says where the new secret of a credential goes.
type rotationConfig struct {
	// Credential is a Secret as "payments/api-token", a role of PostgreSQL, or the
	// accessor of a token of OpenBao, in the system of a name.
	Credential string `yaml:"credential"`
	System     string `yaml:"system"`

	To       []string `yaml:"to"` // destinations: see docs/how-to/rotate.md
	Grace    span     `yaml:"grace"`
	As       string   `yaml:"kind"`
	Lifetime span     `yaml:"lifetime"`
	Freeze   bool     `yaml:"freeze"`
}

// checkRotation says what is wrong with the rotations and with the systems in which
// they are.
func (c *config) checkRotation(op, path string) error {
	known := map[[2]string]bool{}
	for i, r := range c.Rotation {
		where := fmt.Sprintf("%s: rotation[%d]", path, i)
		if r.Credential == "" || r.System == "" {
			return remit.Errorf(remit.Invalid, op, "%s: give it a credential and the name of its system", where)
		}
		if !slices.ContainsFunc(c.Systems, func(s systemConfig) bool { return s.Name == r.System }) {
			return remit.Errorf(remit.Invalid, op, "%s: there is no system %q in this file", where, r.System)
		}
		if known[[2]string{r.System, r.Credential}] {
			return remit.Errorf(remit.Invalid, op, "%s: there is another for %s", where, r.Credential)
		}
		known[[2]string{r.System, r.Credential}] = true
		for _, to := range r.To {
			if _, err := parseDestination(to); err != nil {
				return remit.Errorf(remit.Invalid, op, "%s: %w", where, err)
			}
		}
	}
	return nil
}

// rotationOf is what the configuration says of a credential: nothing, where it does
// not know it. system may be "".
func (c *config) rotationOf(system, credential string) (entry rotationConfig, err error) {
	for _, one := range c.Rotation {
		if one.Credential == credential && (system == "" || system == one.System) {
			if entry.System != "" {
				return entry, remit.Errorf(remit.Invalid, "", "the configuration knows %s in %s and in %s: say --system", credential, entry.System, one.System)
			}
			entry = one
		}
	}
	return entry, nil
}

// request is how a credential is to be rotated.
func (r rotationConfig) request() response.RotationRequest {
	return response.RotationRequest{To: r.To, As: r.As, Freeze: r.Freeze, Grace: time.Duration(r.Grace), Lifetime: time.Duration(r.Lifetime)}
}

// watched says whether a system is one that Remit reads; of the others it only
// rotates credentials.
func (s systemConfig) watched() bool { return s.Connector == "" || s.Connector == kubernetes.Name }

// checkLogin says what is wrong with how a system of another connector is reached.
func (s systemConfig) checkLogin() error {
	if s.watched() {
		return nil
	}
	if s.Mode != "" && s.Mode != remit.ModeObserve {
		switch {
		case s.Connector == postgres.Name && s.Enforce.URLFile == "":
			return remit.Errorf(remit.Invalid, "", "enforce: give it a url_file, with the connection URL of a role that may change others")
		case s.Connector == openbao.Name && (s.Address == "" || s.Enforce.TokenFile == ""):
			return remit.Errorf(remit.Invalid, "", "give it an address, and enforce a token_file")
		}
	}
	return nil
}

func newRotateCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var q rotateQuestion
	cmd := &cobra.Command{
		Use:   "rotate SUBJECT",
		Short: "Replace a credential: issue the next, deliver it, wait for its use, end the old one",
		Long: `Rotate makes a plan that gives a credential a successor, and carries it out when
the configuration asks for no approval; otherwise the plan waits for "remit plans
approve". With --plan it shows what it would do and changes nothing.

The subject is a credential's ID from "remit inventory", or its name in its
system: a Secret as NAMESPACE/NAME (a service account's token, a client
certificate, a bootstrap token), a role of PostgreSQL, or the accessor of a token
of OpenBao or Vault.

The new secret goes to the destinations that the configuration and --to name, and
to the workloads that mount the old one. Nobody else sees it and Remit keeps
nothing of it. The old credential ends only after the new one was seen in use, a
grace later (a day unless --grace says otherwise); until then the plan is running,
and "remit serve" or "remit plans resume" goes on with it.

Destinations; @SYSTEM names another system than the credential's:

  secret:NAMESPACE/NAME#KEY[=PART][,KEY…][@SYSTEM]   entries of a Kubernetes Secret
  workload:NAMESPACE/KIND/NAME[@SYSTEM]              pods that have to start again
  file:/PATH[#PART]                                  a file of this machine
  kv:MOUNT/PATH#KEY[=PART][,KEY…][@SYSTEM]           a KV version 2 secret of OpenBao
  role:NAME[#PART][@SYSTEM]                          the password of a PostgreSQL role`,
		Example: `  remit rotate shop/billing-token --plan
  remit rotate shop/ci-token --kind bound-token --lifetime 30d --to secret:shop/ci#token
  remit rotate orders --system orders-db --to secret:shop/orders#username,password`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.subject = args[0]
			return rotate(cmd, global, &f, q)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.system, "system", "", "the credential is in the system of this `name`")
	flags.BoolVar(&q.preview, "plan", false, "show the plan, and change nothing")
	flags.StringArrayVar(&q.to, "to", nil, "a `destination`, in place of those of the configuration; repeatable")
	flags.Var(&q.grace, "grace", "how long the old one lives on after the new one was seen in use (default 1d)")
	flags.StringVar(&q.as, "kind", "", "the `kind` of successor, where it is not to be like the old: bound-token, projected")
	flags.Var(&q.lifetime, "lifetime", "how long the successor is valid, where it expires")
	flags.BoolVar(&q.freeze, "freeze", false, "freeze an old certificate, which cannot be revoked, until it expires")
	flags.StringVarP(&q.format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

// rotateQuestion is what the user said.
type rotateQuestion struct {
	subject, system, as, format string
	to                          []string
	grace, lifetime             span
	preview, freeze             bool
}

func rotate(cmd *cobra.Command, global *globalFlags, f *responseFlags, q rotateQuestion) error {
	ctx := cmd.Context()
	if err := planFormat(q.format); err != nil {
		return err
	}
	c, err := readConfig(global)
	if err != nil {
		return err
	}
	for _, to := range q.to {
		if _, err := parseDestination(to); err != nil {
			return err
		}
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	request, err := rotationOf(ctx, data, c, q)
	if err != nil {
		return err
	}
	request.AskedBy = f.actor()
	responses := f.responses(c, data, q.preview)
	plan, err := responses.PlanRotation(ctx, request)
	if err != nil {
		return err
	}
	if q.preview {
		return writePlan(cmd.OutOrStdout(), plan, q.format)
	}
	if plan, err = responses.Propose(ctx, plan); err != nil {
		return err
	}
	if plan.State == remit.ResponseApproved {
		if plan, err = responses.CarryOut(ctx, plan.ID); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "plan %s is %s\n", plan.ID, plan.State)
			return err
		}
	}
	if err := writePlan(cmd.OutOrStdout(), plan, q.format); err != nil {
		return err
	}
	switch plan.State {
	case remit.ResponseProposed:
		fmt.Fprintf(cmd.ErrOrStderr(), "\nNEXT\n  somebody else: remit plans approve %s\n", plan.ID)
	case remit.ResponseRunning:
		fmt.Fprintf(cmd.ErrOrStderr(), "\nNEXT\n  remit plans resume %s   goes on, at %s or later; remit serve does so by itself in mode enforce\n", plan.ID, plan.Due.Format(time.RFC3339))
	}
	return nil
}

// rotationOf finds the credential that the user means, and what the configuration
// says of it.
func rotationOf(ctx context.Context, data *dataDir, c *config, q rotateQuestion) (r response.RotationRequest, err error) {
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return r, err
	}
	name, system := q.subject, q.system
	if remit.ID(name).Kind() == remit.KindCredential {
		found, _, err := data.Store.Credentials(ctx, remit.Filter{IDs: []remit.ID{remit.ID(name)}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return r, err
		}
		if len(found) == 0 {
			return r, remit.Errorf(remit.NotFound, "", "there is no credential %s: `remit inventory credentials` shows them", name)
		}
		name, system = found[0].Namespace+"/"+found[0].Name, systemName(systems, found[0].System)
	}
	entry, err := c.rotationOf(system, name)
	if base, ok := firstOfLine(name); ok && err == nil && entry.System == "" {
		entry, err = c.rotationOf(system, base)
	}
	if err != nil {
		return r, err
	}
	at, err := rotatedSystem(ctx, data, systems, c, cmp.Or(system, entry.System))
	if err != nil {
		return r, err
	}
	r = entry.request()
	r.System, r.As, r.Freeze = at.ID, cmp.Or(q.as, r.As), r.Freeze || q.freeze
	r.Grace, r.Lifetime = cmp.Or(time.Duration(q.grace), r.Grace), cmp.Or(time.Duration(q.lifetime), r.Lifetime)
	if len(q.to) > 0 {
		r.To = q.to
	}
	ref, err := credentialRef(at, name)
	if err != nil {
		return r, err
	}
	r.Subject = remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(at.ID, ref, "")}
	found, _, err := data.Store.Credentials(ctx, remit.Filter{System: at.ID, Kinds: []string{ref.Kind}, Namespaces: namespaces(ref), Names: []string{ref.Name}}, remit.PageRequest{Limit: 10})
	if err != nil {
		return r, err
	}
	for _, known := range found {
		if known.Identity != "" || len(found) == 1 {
			r.Subject.ID, r.Identity, r.IdentityID = known.ID, known.Holder, known.Identity
			break
		}
	}
	return r, nil
}

func namespaces(ref remit.Ref) []string {
	if ref.Namespace == "" {
		return nil
	}
	return []string{ref.Namespace}
}

// credentialRef is a credential by its name in a system.
func credentialRef(at remit.System, name string) (remit.Ref, error) {
	switch at.Connector {
	case postgres.Name:
		return remit.Ref{Kind: "Role", Name: strings.TrimPrefix(name, "Role ")}, nil
	case openbao.Name:
		return remit.Ref{Kind: "Token", Name: strings.TrimPrefix(name, "Token ")}, nil
	}
	namespace, secret, ok := strings.Cut(strings.TrimPrefix(name, "Secret "), "/")
	if !ok || namespace == "" || secret == "" {
		return remit.Ref{}, remit.Errorf(remit.Invalid, "", "%q names no credential of the cluster %s: write the Secret in which it lies as NAMESPACE/NAME", name, at.Name)
	}
	return remit.Ref{Kind: "Secret", Namespace: namespace, Name: secret}, nil
}

// rotatedSystem is the system of a name, or the only one there is. One in which
// Remit reads nothing becomes known by this.
func rotatedSystem(ctx context.Context, data *dataDir, systems []remit.System, c *config, name string) (remit.System, error) {
	var names []string
	for _, s := range c.Systems {
		names = append(names, s.Name)
	}
	for _, s := range systems {
		if !slices.Contains(names, s.Name) && s.Connector == kubernetes.Name {
			names = append(names, s.Name)
		}
	}
	if name == "" {
		if len(names) != 1 {
			return remit.System{}, remit.Errorf(remit.Invalid, "", "it is not clear in which system: say --system with one of %s", cmp.Or(strings.Join(names, ", "), "those in the configuration, of which there are none"))
		}
		name = names[0]
	}
	for _, s := range systems {
		if s.Name == name || string(s.ID) == name {
			return s, nil
		}
	}
	for _, s := range c.Systems {
		if s.Name != name {
			continue
		}
		if s.watched() {
			return remit.System{}, remit.Errorf(remit.NotFound, "", "the cluster %s has not been read yet: run `remit scan --system %s` or `remit serve` first", name, name)
		}
		// As when events of it are imported under this name.
		native := "named " + name
		made := remit.System{ID: remit.SystemID(s.Connector, native), Connector: s.Connector, Name: name, Native: native, Address: s.Address, Mode: cmp.Or(s.Mode, remit.ModeObserve), Recorded: true}
		return made, data.Store.PutSystem(ctx, made)
	}
	return remit.System{}, remit.Errorf(remit.NotFound, "", "no system %q: there are %s", name, strings.Join(names, ", "))
}

// destination is an address as users write it.
type destination struct{ kind, place, system string }

// destinationKinds are the kinds of destination and the connectors of their systems;
// "" is this machine.
var destinationKinds = map[string]string{
	"secret": kubernetes.Name, "workload": kubernetes.Name, "kv": openbao.Name, "role": postgres.Name, "file": "",
}

func parseDestination(address string) (d destination, err error) {
	var ok bool
	if d.kind, d.place, ok = strings.Cut(address, ":"); !ok || d.place == "" {
		return d, remit.Errorf(remit.Invalid, "", "%q is no destination: write secret:NAMESPACE/NAME#KEY, workload:NAMESPACE/KIND/NAME, file:/PATH, kv:MOUNT/PATH#KEY or role:NAME", address)
	}
	of, known := destinationKinds[d.kind]
	if !known {
		return d, remit.Errorf(remit.Invalid, "", "%q: no kind of destination is called %q: use secret, workload, file, kv or role", address, d.kind)
	}
	if of != "" {
		if at := strings.LastIndex(d.place, "@"); at >= 0 {
			d.place, d.system = d.place[:at], d.place[at+1:]
		}
	}
	if d.kind == "file" {
		_, err = openFile(d.place)
	}
	return d, err
}

// openFile is the file at "/PATH#PART".
func openFile(place string) (*file.File, error) {
	path, part, _ := strings.Cut(place, "#")
	return file.Open(path, part)
}

// rotators open what rotates, for the responses of a data directory.
type rotators struct {
	flags   *responseFlags
	config  *config
	preview bool
	of      func(remit.ID) (systemConfig, remit.System)
}

// may says whether anything may be changed in a system.
func (r *rotators) may(s systemConfig) error {
	if !r.preview && cmp.Or(s.Mode, remit.ModeObserve) == remit.ModeObserve {
		return remit.Errorf(remit.Forbidden, "", "the system %s is in mode observe, in which nothing is changed: set mode: recommend or enforce, and the login to change it with (enforce), under systems in remit.yaml", s.Name)
	}
	return nil
}

// issuer opens what gives the credentials of a system successors.
func (r *rotators) issuer(_ context.Context, id remit.ID) (connector.Issuer, error) {
	s, known := r.of(id)
	switch known.Connector {
	case kubernetes.Name:
		return r.cluster(s)
	case postgres.Name:
		return r.database(s)
	case openbao.Name:
		return r.vault(s)
	}
	return nil, remit.Errorf(remit.Unsupported, "", "Remit cannot rotate the credentials of %s", s.Name)
}

// destination opens the place at an address. Where it names no system, it is in that
// of the credential, or in the only one of its kind.
func (r *rotators) destination(_ context.Context, id remit.ID, address string) (connector.Destination, error) {
	d, err := parseDestination(address)
	if err != nil {
		return nil, err
	}
	if d.kind == "file" {
		return openFile(d.place)
	}
	s, err := r.destinationSystem(d, id)
	if err != nil {
		return nil, err
	}
	switch d.kind {
	case "secret", "workload":
		cluster, err := r.cluster(s)
		if err != nil {
			return nil, err
		}
		if d.kind == "secret" {
			return cluster.SecretDestination(d.place)
		}
		return cluster.WorkloadDestination(d.place)
	case "kv":
		vault, err := r.vault(s)
		if err != nil {
			return nil, err
		}
		return vault.KV(d.place)
	default:
		database, err := r.database(s)
		if err != nil {
			return nil, err
		}
		role, part, _ := strings.Cut(d.place, "#")
		return database.Password(role, part)
	}
}

func (r *rotators) destinationSystem(d destination, id remit.ID) (systemConfig, error) {
	of := destinationKinds[d.kind]
	if s, known := r.of(id); d.system == "" && known.Connector == of {
		return s, nil
	}
	var found []systemConfig
	for _, s := range r.config.Systems {
		if cmp.Or(s.Connector, kubernetes.Name) == of && (d.system == "" || d.system == s.Name) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return systemConfig{}, remit.Errorf(remit.Invalid, "", "%s:%s: it is not clear in which system of the connector %s: name one of those in the configuration with @SYSTEM behind it", d.kind, d.place, of)
	}
	return found[0], nil
}

func (r *rotators) cluster(s systemConfig) (*kubernetes.Rotator, error) {
	if err := r.may(s); err != nil {
		return nil, err
	}
	return kubernetes.OpenRotator(r.flags.login(s, r.preview))
}

func (r *rotators) database(s systemConfig) (*postgres.Server, error) {
	if err := r.may(s); err != nil {
		return nil, err
	}
	return postgres.Open(postgres.Config{URLFile: s.Enforce.URLFile})
}

func (r *rotators) vault(s systemConfig) (*openbao.Server, error) {
	if err := r.may(s); err != nil {
		return nil, err
	}
	return openbao.Open(openbao.Config{Address: s.Address, TokenFile: s.Enforce.TokenFile, CAFile: s.Enforce.CAFile, Namespace: s.Namespace})
}

// rotation is what the configuration says of a credential that a rule wants rotated.
// A successor, which has another name, is known by what its name begins with.
func (r *rotators) rotation(id remit.ID, credential remit.Ref) response.RotationRequest {
	s, _ := r.of(id)
	name := credential.Name
	if credential.Namespace != "" {
		name = credential.Namespace + "/" + name
	}
	entry, _ := r.config.rotationOf(s.Name, name) // with a system there is one at most
	if base, ok := firstOfLine(name); ok && entry.System == "" {
		entry, _ = r.config.rotationOf(s.Name, base)
	}
	return entry.request()
}

// successorName is how a rotation names what it makes after the first.
var successorName = regexp.MustCompile(`^(.+)[-_][a-z2-7]{10}$`)

// firstOfLine is the name of the first of a line of credentials, if this can be the
// name of one that came after it.
func firstOfLine(name string) (string, bool) {
	if m := successorName.FindStringSubmatch(name); m != nil {
		return m[1], true
	}
	return "", false
}

// goesOn says when a plan that waits goes on; "" when it does not wait.
func goesOn(r remit.Response) string {
	if r.Due.IsZero() || r.State != remit.ResponseRunning && r.State != remit.ResponseUndoing {
		return ""
	}
	return "; it waits until " + report.Visible(r.Due.UTC().Format(time.RFC3339))
}
