package gcp

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// mint reads the credential that the entry's call issued. Google writes no ID
// for tokens, so that of those only whom they authenticate is known.
func (d *decoding) mint() {
	e, in := d.event, d.in
	if e.Outcome != remit.Allowed {
		return
	}
	response := d.payload.Get("response")
	switch string(d.method[bytes.LastIndexByte(d.method, '.')+1:]) {
	case "GenerateAccessToken", "GenerateIdToken", "SignJwt", "SignBlob":
		if string(d.service) != "iamcredentials.googleapis.com" {
			return
		}
		e.Minted = remit.Minted{Type: remit.ShortLivedToken, For: d.minted()}
		request := d.payload.Get("request")
		e.Minted.Lifetime = duration(request.GetStringBytes("lifetime"))
		if audience := request.GetStringBytes("audience"); len(audience) > 0 {
			e.Minted.Audiences = []string{in.String(audience)}
		}
	case "CreateServiceAccountKey", "UploadServiceAccountKey":
		name := response.GetStringBytes("name")
		if len(name) == 0 {
			return
		}
		e.Minted = remit.Minted{Credential: string(lastOf(name)), Type: remit.PrivateKey, For: d.minted()}
		if account := accountIn(name); bytes.IndexByte(account, '@') > 0 {
			e.Minted.For = d.account(account)
		}
		e.Minted.Expires = d.ends(response)
	case "CreateKey":
		if string(d.service) != "apikeys.googleapis.com" {
			return
		}
		// Of a long operation, only the last entry has the key.
		id := response.GetStringBytes("uid")
		if len(id) == 0 {
			id = lastOf(response.GetStringBytes("name"))
		}
		if len(id) > 0 && bytes.Contains(response.GetStringBytes("name"), []byte("/keys/")) {
			e.Minted = remit.Minted{Credential: string(id), Type: remit.APIKey}
		}
	}
}

// minted returns the service account that the call is about.
func (d *decoding) minted() remit.Ref {
	if d.event.Resource.Kind == kindServiceAccount {
		return d.event.Resource
	}
	if account := accountIn(d.payload.GetStringBytes("request", "name")); len(account) > 0 {
		return d.account(account)
	}
	if mail := d.entry.GetStringBytes("resource", "labels", "email_id"); len(mail) > 0 {
		return d.account(mail)
	}
	return remit.Ref{}
}

// farFuture is when keys end that do not: 9999-12-31.
const farFuture = 253402300799

// ends reads until when a key is valid: a time, or seconds since 1970.
func (d *decoding) ends(response *fastjson.Value) time.Time {
	for _, key := range [...]string{"valid_before_time", "validBeforeTime"} {
		v := response.Get(key)
		if v == nil {
			continue
		}
		if t := connector.ParseTime(v.GetStringBytes()); !t.IsZero() && t.Unix() < farFuture {
			return t
		}
		if s := number(v.Get("seconds")); s > 0 && s < farFuture {
			return time.Unix(s, 0).UTC()
		}
	}
	return time.Time{}
}

// duration reads a whole number of seconds: "3600s".
func duration(b []byte) time.Duration {
	digits, ok := bytes.CutSuffix(b, []byte{'s'})
	if !ok || len(digits) == 0 || len(digits) > 9 {
		return 0
	}
	var n time.Duration
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + time.Duration(c-'0')
	}
	return n * time.Second
}
