package gcp

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
)

// labelled are the labels that name a resource of a type, where the entry does
// not name it otherwise.
var labelled = [...]string{"email_id", "bucket_name", "instance_id", "dataset_id", "cluster_name", "service_name", "database_id", "name"}

// resource tells what the entry is about: its resource's name as it stands,
// of the kind that the monitored resource has, in the project's namespace. A
// service account is the identity that the inventory knows.
func (d *decoding) resource() {
	e := d.event
	labels := d.entry.Get("resource", "labels")
	kind := d.entry.GetStringBytes("resource", "type")
	name := d.resourceName
	if account := accountIn(name); len(account) > 0 {
		if mail := labels.GetStringBytes("email_id"); len(mail) > 0 && bytes.IndexByte(account, '@') < 0 {
			account = mail // the log often has its number
		}
		e.Resource = d.account(account)
		return
	}
	if len(name) == 0 {
		for _, check := range d.payload.GetArray("authorizationInfo") {
			if name = check.GetStringBytes("resource"); len(name) > 0 {
				break
			}
		}
	}
	if len(name) == 0 && labels != nil {
		for _, key := range labelled {
			if name = labels.GetStringBytes(key); len(name) > 0 {
				break
			}
		}
	}
	if len(name) == 0 {
		return
	}
	if len(kind) == 0 || string(kind) == "audited_resource" {
		// What only says that it is audited is told by its service instead.
		service := firstOf(d.service, d.payload.GetStringBytes("authorizationInfo", "0", "permission"))
		if service, _, _ = bytes.Cut(service, []byte{'.'}); len(service) > 0 {
			kind = service
		}
	}
	project := projectOf(name)
	if len(project) == 0 || isNumber(project) { // an ID where there is one
		if id := labels.GetStringBytes("project_id"); len(id) > 0 && !isNumber(id) {
			project = id
		}
	}
	e.Resource = remit.Ref{Kind: d.in.String(kind), Namespace: d.in.String(project), Name: interned(d, name)}
	if len(project) == 0 {
		e.Resource.Namespace = e.Native
	}
}

// interned keeps names short enough to come again.
func interned(d *decoding, name []byte) string {
	if len(name) > 96 {
		return string(name)
	}
	return d.in.String(name)
}

// accountIn returns the mail address or number of the service account that a
// resource's name names, or of whose key it is.
func accountIn(name []byte) []byte {
	_, rest, ok := bytes.Cut(name, []byte("/serviceAccounts/"))
	if !ok {
		return nil
	}
	account, _, _ := bytes.Cut(rest, []byte{'/'})
	return account
}

func isNumber(b []byte) bool {
	return len(bytes.Trim(b, "0123456789")) == 0
}

// lastOf returns what follows the last slash.
func lastOf(name []byte) []byte {
	return name[bytes.LastIndexByte(name, '/')+1:]
}

// number reads a number that is one, or is written as text.
func number(v *fastjson.Value) int64 {
	if v == nil {
		return 0
	}
	if v.Type() == fastjson.TypeNumber {
		return v.GetInt64()
	}
	var n int64
	for _, c := range v.GetStringBytes() {
		if c < '0' || c > '9' || n > 1e15 {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
