package archive

import (
	"io"
	"net/netip"
	"strconv"
	"strings"

	"remit"
)

// ocsfVersion is the version of the Open Cybersecurity Schema Framework that
// exports follow: https://schema.ocsf.io/1.6.0.
const ocsfVersion = "1.6.0"

// WriteOCSF returns a function that writes each event as one line of JSON by
// the Open Cybersecurity Schema Framework 1.6.0: a sign-in as Authentication
// (3002), the making, changing and deleting of an account as Account Change
// (3001), all else as API Activity (6003). What OCSF has no place for stands in
// unmapped under the names of the archive's columns.
func WriteOCSF(w io.Writer) Each {
	out := lines(w)
	return func(e *remit.Activity, raw []byte) error { return out.Encode(ocsf(e, raw)) }
}

// The classes of OCSF that events are written as.
const (
	ocsfAccountChange  = 3001
	ocsfAuthentication = 3002
	ocsfAPIActivity    = 6003
)

// activity_id of what the schema has no word for.
const ocsfOther = 99

type ocsfEvent struct {
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	CategoryUID  int    `json:"category_uid"`
	ClassUID     int    `json:"class_uid"`
	TypeUID      int    `json:"type_uid"`
	SeverityID   int    `json:"severity_id"`
	Time         int64  `json:"time"` // milliseconds since 1970

	Status       string `json:"status,omitempty"`
	StatusID     int    `json:"status_id"`
	StatusCode   string `json:"status_code,omitempty"`
	StatusDetail string `json:"status_detail,omitempty"`

	Metadata ocsfMetadata `json:"metadata"`
	Actor    ocsfActor    `json:"actor"`
	Source   ocsfEndpoint `json:"src_endpoint"`
	User     *ocsfUser    `json:"user,omitempty"`
	Service  *ocsfNamed   `json:"service,omitempty"`
	API      *ocsfAPI     `json:"api,omitempty"`
	Request  *ocsfRequest `json:"http_request,omitempty"`

	Resources []ocsfResource `json:"resources,omitempty"`
	RawData   string         `json:"raw_data,omitempty"`
	Unmapped  map[string]any `json:"unmapped,omitempty"`
}

type ocsfMetadata struct {
	Version    string      `json:"version"`
	UID        string      `json:"uid,omitempty"`
	EventCode  string      `json:"event_code,omitempty"`
	LoggedTime int64       `json:"logged_time,omitempty"`
	Product    ocsfProduct `json:"product"`
}

type ocsfProduct struct {
	Name   string `json:"name"`
	Vendor string `json:"vendor_name"`
}

type ocsfActor struct {
	User    ocsfUser     `json:"user"`
	Session *ocsfSession `json:"session,omitempty"`
}

type ocsfSession struct {
	UID string `json:"uid"`
}

type ocsfUser struct {
	UID         string           `json:"uid,omitempty"`
	Name        string           `json:"name"`
	Type        string           `json:"type,omitempty"`
	TypeID      int              `json:"type_id"`
	Credentials []ocsfCredential `json:"programmatic_credentials,omitempty"`
}

type ocsfCredential struct {
	UID  string `json:"uid"`
	Type string `json:"type,omitempty"`
}

type ocsfEndpoint struct {
	IP   string `json:"ip,omitempty"`
	Name string `json:"name,omitempty"`
}

type ocsfNamed struct {
	UID  string `json:"uid,omitempty"`
	Name string `json:"name,omitempty"`
}

type ocsfAPI struct {
	Operation string        `json:"operation"`
	Service   ocsfNamed     `json:"service"`
	Response  *ocsfResponse `json:"response,omitempty"`
}

type ocsfResponse struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

type ocsfRequest struct {
	UserAgent string `json:"user_agent,omitempty"`
}

type ocsfResource struct {
	Type      string `json:"type,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

func ocsf(e *remit.Activity, raw []byte) *ocsfEvent {
	class, activity, name := ocsfClass(e)
	o := &ocsfEvent{
		ActivityID: activity, ActivityName: name,
		ClassUID: class, CategoryUID: class / 1000, TypeUID: class*100 + activity,
		SeverityID: 1, // informational: events are no alerts
		Time:       e.Time.UnixMilli(),
		Metadata: ocsfMetadata{
			Version: ocsfVersion, UID: e.ID, EventCode: e.Action,
			Product: ocsfProduct{Name: "Remit", Vendor: "Remit"},
		},
		Actor:        ocsfActor{User: ocsfUserOf(e)},
		Source:       ocsfSource(e.Address),
		StatusDetail: e.Reason,
		RawData:      string(raw),
	}
	if !e.Learned.IsZero() {
		o.Metadata.LoggedTime = e.Learned.UnixMilli()
	}
	switch e.Outcome {
	case remit.Allowed:
		o.Status, o.StatusID = "Success", 1
	case remit.Denied, remit.Failed:
		o.Status, o.StatusID = "Failure", 2
	}
	if e.Code != 0 {
		o.StatusCode = strconv.Itoa(e.Code)
	}
	if e.UserAgent != "" {
		o.Request = &ocsfRequest{e.UserAgent}
	}
	if e.Credential != "" {
		o.Actor.Session = &ocsfSession{e.Credential}
	}
	service := ocsfNamed{UID: string(e.System), Name: e.Native}
	switch class {
	case ocsfAuthentication:
		user := o.Actor.User
		o.User, o.Service = &user, &service
	case ocsfAccountChange:
		o.User = &ocsfUser{Name: e.Resource.Name, Type: e.Resource.Kind}
		if e.Resource.Namespace != "" {
			o.User.Name = e.Resource.Namespace + "/" + e.Resource.Name
		}
	default:
		o.API = &ocsfAPI{Operation: e.Action, Service: service}
		if e.Code != 0 || e.Reason != "" {
			o.API.Response = &ocsfResponse{e.Code, e.Reason}
		}
		if e.Resource != (remit.Ref{}) {
			o.Resources = []ocsfResource{{e.Resource.Kind, e.Resource.Namespace, e.Resource.Name}}
		}
	}
	o.Unmapped = ocsfUnmapped(e)
	return o
}

func ocsfUserOf(e *remit.Activity) ocsfUser {
	u := ocsfUser{UID: string(e.Identity), Name: e.Principal, Type: string(e.Type), TypeID: ocsfOther}
	if u.Name == "" {
		u.Name = e.Actor.Name
	}
	switch e.Type {
	case "":
		u.TypeID = 0
	case remit.Human:
		u.TypeID = 1
	case remit.ServiceAccount:
		u.TypeID = 4
	}
	if e.Credential != "" {
		u.Credentials = []ocsfCredential{{e.Credential, string(e.CredentialType)}}
	}
	return u
}

// ocsfSource is the source of an event: the schema wants one, so it is named
// unknown where the event tells none.
func ocsfSource(address string) ocsfEndpoint {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ocsfEndpoint{IP: ip.WithZone("").String()}
	}
	if address == "" {
		address = "unknown"
	}
	return ocsfEndpoint{Name: address}
}

// ocsfUnmapped holds what the schema has no attribute for.
func ocsfUnmapped(e *remit.Activity) map[string]any {
	all := map[string]any{
		"node": e.Node, "parent": e.Parent, "root": e.Root, "minted_credential": e.Minted.Credential,
		"bound_kind": e.Bound.Kind, "bound_namespace": e.Bound.Namespace, "bound_name": e.Bound.Name,
		"binding_kind": e.Binding.Kind, "binding_namespace": e.Binding.Namespace, "binding_name": e.Binding.Name,
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	if len(e.Chain) > 0 {
		all["chain"] = e.Chain
	}
	for name, value := range map[string]bool{"self_minted": e.SelfMinted, "outside": e.Outside} {
		if value {
			all[name] = true
		}
	}
	return all
}

// ocsfClass chooses the class of an event and the activity within it.
func ocsfClass(e *remit.Activity) (class, activity int, name string) {
	word := verb(e.Action)
	switch {
	case strings.Contains(word, "logout"), strings.Contains(word, "logoff"), strings.Contains(word, "signout"):
		return ocsfAuthentication, 2, "Logoff"
	case strings.Contains(word, "login"), strings.Contains(word, "logon"), strings.Contains(word, "signin"):
		return ocsfAuthentication, 1, "Logon"
	}
	activity, name = ocsfOther, e.Action
	for _, c := range crud {
		for _, prefix := range c.prefixes {
			if activity == ocsfOther && strings.HasPrefix(word, prefix) {
				activity, name = c.activity, c.name
			}
		}
	}
	if accountKinds[strings.ToLower(e.Resource.Kind)] && e.Resource.Name != "" {
		switch activity {
		case 1:
			return ocsfAccountChange, 1, "Create"
		case 3:
			return ocsfAccountChange, ocsfOther, e.Action
		case 4:
			return ocsfAccountChange, 6, "Delete"
		}
	}
	return ocsfAPIActivity, activity, name
}

// verb is the part of an action that says what is done: "getobject" of
// "s3:GetObject", "addmember" of "org.add_member".
func verb(action string) string {
	if i := strings.LastIndexAny(action, ":./"); i >= 0 {
		action = action[i+1:]
	}
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(action))
}

// crud maps the words that actions begin with to the activities of API Activity.
var crud = []struct {
	activity int
	name     string
	prefixes []string
}{
	{1, "Create", []string{"create", "add", "insert", "run", "generate", "register", "invite", "post"}},
	{2, "Read", []string{"get", "list", "watch", "read", "describe", "head", "select", "view", "search", "lookup", "download", "export"}},
	{3, "Update", []string{"update", "patch", "put", "set", "modify", "attach", "detach", "edit", "change", "alter", "enable", "disable", "rename"}},
	{4, "Delete", []string{"delete", "remove", "drop", "destroy", "terminate", "revoke", "deregister"}},
}

// accountKinds are the resources that are accounts, in lower case.
var accountKinds = map[string]bool{
	"user": true, "users": true, "iam:user": true, "member": true,
	"serviceaccount": true, "serviceaccounts": true, "service-account": true,
	"iam:role": true,
}
