package kubernetes

import (
	"bytes"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fastjson"

	"remit/connector"
)

// Strip removes what a request or an answer carried that authenticates: minted
// tokens, tokens under review, the values of Secrets, literal passwords in the
// environment of containers, and whatever else looks like a token. At level
// Metadata an event has no bodies and nothing but its URI and its object's
// annotations is looked at.
func (a audit) Strip(v *fastjson.Value, arena *fastjson.Arena) bool {
	changed := false
	if v.Type() == fastjson.TypeObject {
		for _, path := range [...][]string{{"properties", "log"}, {"message"}, {"@message"}} {
			text := v.GetStringBytes(path...)
			if len(text) == 0 || text[0] != '{' {
				continue
			}
			inner, err := fastjson.ParseBytes(text)
			if err != nil || !a.Strip(inner, arena) {
				continue
			}
			holder := v
			if len(path) == 2 {
				holder = v.Get(path[0])
			}
			holder.Set(path[len(path)-1], arena.NewStringBytes(inner.MarshalTo(nil)))
			changed = true
		}
	}
	for _, path := range [...][]string{{"requestObject"}, {"responseObject"}, {"protoPayload", "request"}, {"protoPayload", "response"}} {
		if body := v.Get(path...); body != nil {
			changed = stripBody(body, arena, 0) || changed
		}
	}
	if uri := v.GetStringBytes("requestURI"); bytes.IndexByte(uri, '?') >= 0 {
		if clean, ok := stripQuery(string(uri)); ok {
			v.Set("requestURI", arena.NewString(clean))
			changed = true
		}
	}
	return connector.StripTokens(v, arena, secretKey) || changed
}

// stripBody looks at an object, or the objects of a list, for what its kind
// holds in plain sight.
func stripBody(o *fastjson.Value, arena *fastjson.Arena, depth int) bool {
	if o.Type() != fastjson.TypeObject || depth > 4 {
		return false
	}
	changed := false
	for _, item := range o.GetArray("items") {
		changed = stripBody(item, arena, depth+1) || changed
	}
	for _, name := range [...]string{"data", "stringData"} {
		data := o.GetObject(name)
		if data == nil || !holdsSecrets(o) {
			continue
		}
		var keys []string
		data.Visit(func(key []byte, _ *fastjson.Value) { keys = append(keys, string(key)) })
		for _, key := range keys {
			data.Set(key, arena.NewString(connector.Stripped))
			changed = true
		}
	}
	for _, path := range [...][2]string{{"status", "token"}, {"spec", "token"}} {
		if t := o.GetStringBytes(path[0], path[1]); len(t) > 0 {
			o.Get(path[0]).Set(path[1], arena.NewString(connector.Stripped))
			changed = true
		}
	}
	const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	if notes := o.Get("metadata", "annotations"); notes.Get(lastApplied) != nil && holdsSecrets(o) {
		notes.Set(lastApplied, arena.NewString(connector.Stripped))
		changed = true
	}
	return stripEnvironment(o, arena, 0) || changed
}

// holdsSecrets says whether the values of an object's data are secrets. A
// patch names no kind: its data may be a Secret's.
func holdsSecrets(o *fastjson.Value) bool {
	kind := string(o.GetStringBytes("kind"))
	return kind == "Secret" || kind == "" || strings.HasSuffix(string(o.GetStringBytes("@type")), ".Secret")
}

// stripEnvironment removes literal values of variables whose name says that
// they are secret, wherever a pod's template stands in the object.
func stripEnvironment(v *fastjson.Value, arena *fastjson.Arena, depth int) bool {
	if depth > 24 {
		return false
	}
	changed := false
	switch v.Type() {
	case fastjson.TypeObject:
		if name := v.GetStringBytes("name"); len(name) > 0 && v.Get("value") != nil && secretKey(string(name)) {
			v.Set("value", arena.NewString(connector.Stripped))
			changed = true
		}
		v.GetObject().Visit(func(_ []byte, inner *fastjson.Value) {
			changed = stripEnvironment(inner, arena, depth+1) || changed
		})
	case fastjson.TypeArray:
		for _, inner := range v.GetArray() {
			changed = stripEnvironment(inner, arena, depth+1) || changed
		}
	}
	return changed
}

// stripQuery removes the values of secret parameters from a URI, and what a
// command that is executed in a pod is given behind a secret-looking option.
func stripQuery(uri string) (string, bool) {
	path, query, _ := strings.Cut(uri, "?")
	parts := strings.Split(query, "&")
	changed, after := false, false
	for i, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		secret := secretKey(key) || key == "command" && after
		after = key == "command" && strings.HasPrefix(value, "-") && secretKey(strings.TrimLeft(value, "-"))
		if option, v, ok := strings.Cut(value, "%3D"); key == "command" && ok && v != "" && secretKey(option) {
			parts[i], changed = key+"="+option+"%3D"+connector.Stripped, true
			continue
		}
		if secret && value != "" {
			parts[i], changed = key+"="+connector.Stripped, true
		}
	}
	return path + "?" + strings.Join(parts, "&"), changed
}

// secretKey says whether a field, variable or option of that name holds a
// secret. References to secrets (secretName, secretKeyRef) do not.
func secretKey(name string) bool {
	if len(name) > 256 {
		return false
	}
	// It is asked for every key of every event, and most have an end that no
	// secret's name has.
	var scratch [256]byte
	lower, small := scratch[:0], false
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= utf8.RuneSelf:
			return secretName(strings.ToLower(withoutSeparators.Replace(name)), name == strings.ToUpper(name))
		case c == '_' || c == '-' || c == '.':
			continue
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z':
			small = true
		}
		lower = append(lower, c)
	}
	if len(lower) == 0 || strings.IndexByte("ntyda", lower[len(lower)-1]) < 0 {
		return false
	}
	return secretName(unsafe.String(&lower[0], len(lower)), !small) // it is not kept
}

var withoutSeparators = strings.NewReplacer("_", "", "-", "", ".", "")

// secretName judges a name in lower case without separators; variable says that
// it was written in capitals.
func secretName(lower string, variable bool) bool {
	switch lower {
	case "token", "bearertoken", "idtoken", "accesstoken", "refreshtoken", "clientsecret", "privatekey", "clientkeydata":
		return true
	}
	for _, end := range [...]string{"password", "passwd", "pwd", "secretkey", "apikey", "accesskey", "authtoken", "apitoken", "secrettoken"} {
		if strings.HasSuffix(lower, end) {
			return true
		}
	}
	return variable && (strings.HasSuffix(lower, "token") || strings.HasSuffix(lower, "secret"))
}
