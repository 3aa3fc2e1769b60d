package connector

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fastjson"
)

// The bounds of stripping: how deep a value is looked into (what lies deeper is
// taken out whole), how many times JSON within a string within JSON is, and how
// long such a string may be to be read as JSON at all.
const (
	stripDepth    = fastjson.MaxDepth
	stripEmbedded = 3
	stripDocument = 1 << 20
	stripPasses   = 8 // over one string
)

// parsers are for documents that are read on the side and not kept.
var parsers fastjson.ParserPool

// StripTokens takes secrets out of v, in place, and says whether it changed
// anything. Within any string it replaces, by [Stripped], what is a JSON Web
// Token (RFC 7519), a PEM private key (RFC 7468, also in base64), a bearer token
// (RFC 6750), or the value of a parameter that signs a URL or stands in a
// connection string (sig=, X-Amz-Signature=, AccountKey=, password=), and leaves
// the rest of the string as it is. A string, or a list of strings, under a key
// for which secretKeys says true is replaced as a whole; objects under such a
// key are walked like others. Strings that are JSON themselves are treated alike.
//
// secretKeys must not keep the key, whose memory is reused; it may be nil. New
// values are the arena's and live as long as it does. v must not be used by
// others meanwhile.
func StripTokens(v *fastjson.Value, arena *fastjson.Arena, secretKeys func(key string) bool) bool {
	s := stripper{arena: arena, secret: secretKeys}
	s.value(v, stripDepth, false)
	return s.changed
}

// StripAll replaces every string within v, in place, by [Stripped], and says
// whether there was one: for objects whose keys are arbitrary and whose values
// are not to be trusted, such as a function's environment. v may be nil.
func StripAll(v *fastjson.Value, arena *fastjson.Arena) bool {
	s := stripper{arena: arena}
	s.all(v, stripDepth)
	return s.changed
}

// HashID returns an ID for an event that has none of its own: a hash of the
// event as strip leaves it, so that the event has one ID before and after. v is
// not changed. It costs as much as parsing and stripping the event once more.
func HashID(v *fastjson.Value, strip func(v *fastjson.Value, arena *fastjson.Arena) bool) string {
	b := AppendJSON(nil, v)
	p := parsers.Get()
	defer parsers.Put(p)
	if twin, err := p.ParseBytes(b); err == nil && strip(twin, &fastjson.Arena{}) {
		b = AppendJSON(nil, twin)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// AppendJSON appends v as JSON (RFC 8259) and returns the extended buffer. The
// fastjson package's own MarshalTo writes Go's escapes, such as \x1b, for
// strings that have been read, and takes over whatever numbers and escapes its
// lenient parser let pass; nothing else could read that.
func AppendJSON(b []byte, v *fastjson.Value) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	switch v.Type() {
	case fastjson.TypeString:
		return appendString(b, v.GetStringBytes())
	case fastjson.TypeArray:
		b = append(b, '[')
		for i, item := range v.GetArray() {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendJSON(b, item)
		}
		return append(b, ']')
	case fastjson.TypeObject:
		b = append(b, '{')
		start := len(b)
		v.GetObject().Visit(func(key []byte, item *fastjson.Value) {
			if len(b) > start {
				b = append(b, ',')
			}
			b = AppendJSON(append(appendString(b, key), ':'), item)
		})
		return append(b, '}')
	case fastjson.TypeNumber:
		start := len(b)
		b = v.MarshalTo(b)
		if !json.Valid(b[start:]) { // "nan", "1.2.3"
			text := bytes.Clone(b[start:])
			return appendString(b[:start], text)
		}
		return b
	default:
		return v.MarshalTo(b) // true, false, null
	}
}

// appendString appends s in quotes. Bytes that are no UTF-8 become U+FFFD.
func appendString(b, s []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

type stripper struct {
	arena    *fastjson.Arena
	secret   func(key string) bool
	embedded int // how many documents deep
	changed  bool
}

// value walks v. secret says that it stands under a secret's key.
func (s *stripper) value(v *fastjson.Value, depth int, secret bool) {
	if v == nil {
		return
	}
	switch v.Type() {
	case fastjson.TypeString:
		s.string(v, secret)
	case fastjson.TypeArray:
		for _, item := range v.GetArray() {
			if depth == 0 {
				s.all(item, 0)
				continue
			}
			s.value(item, depth-1, secret && item.Type() == fastjson.TypeString)
		}
	case fastjson.TypeObject:
		v.GetObject().Visit(func(key []byte, item *fastjson.Value) {
			if depth == 0 {
				s.all(item, 0)
				return
			}
			s.value(item, depth-1, s.isSecret(key))
		})
	}
}

func (s *stripper) isSecret(key []byte) bool {
	if s.secret == nil || len(key) == 0 {
		return false
	}
	// A copy of each key would be most of the cost of stripping.
	return s.secret(unsafe.String(&key[0], len(key)))
}

func (s *stripper) all(v *fastjson.Value, depth int) {
	if v == nil {
		return
	}
	switch v.Type() {
	case fastjson.TypeString:
		s.string(v, true)
	case fastjson.TypeArray, fastjson.TypeObject:
		if depth == 0 {
			s.replace(v, Stripped)
			return
		}
		if v.Type() == fastjson.TypeArray {
			for _, item := range v.GetArray() {
				s.all(item, depth-1)
			}
			return
		}
		v.GetObject().Visit(func(_ []byte, item *fastjson.Value) { s.all(item, depth-1) })
	}
}

// replace puts a string in the place of v. Setting the key of v's parent would
// miss the second of two equal keys. Strings, arrays and objects are values of
// their own; true, false and null, which a parser shares, never come here.
func (s *stripper) replace(v *fastjson.Value, text string) {
	*v = *s.arena.NewString(text)
	s.changed = true
}

func (s *stripper) string(v *fastjson.Value, secret bool) {
	b := v.GetStringBytes()
	if secret {
		if len(b) > 0 && string(b) != Stripped {
			s.replace(v, Stripped)
		}
		return
	}
	if len(b) < 8 {
		return
	}
	if (b[0] == '{' || b[0] == '[') && s.embedded < stripEmbedded && len(b) <= stripDocument {
		if s.document(v, b) {
			return
		}
	}
	if clean, ok := stripText(b); ok {
		s.replace(v, string(clean))
	}
}

// document strips a string that is JSON itself, and says whether it was.
func (s *stripper) document(v *fastjson.Value, b []byte) bool {
	p := parsers.Get()
	defer parsers.Put(p)
	inner, err := p.ParseBytes(b)
	if err != nil {
		return false
	}
	nested := stripper{arena: &fastjson.Arena{}, secret: s.secret, embedded: s.embedded + 1}
	nested.value(inner, stripDepth, false)
	if nested.changed {
		s.replace(v, string(AppendJSON(nil, inner)))
	}
	return true
}

// stripText returns b without secrets, and whether it had any. What is taken
// out can make something else look like a secret, so it looks until nothing is
// found, and gives up a string in which that goes on.
func stripText(b []byte) ([]byte, bool) {
	if !suspicious(b) {
		return b, false
	}
	for pass := range stripPasses {
		var found bool
		for _, find := range [...]func([]byte) (int, int){findPEM, findBase64PEM, findJWT, findBearer, findParameter} {
			if clean, ok := cut(b, find); ok {
				b, found = clean, true
			}
		}
		if !found {
			return b, pass > 0
		}
	}
	return []byte(Stripped), true
}

// suspicious says whether any of what stripText looks for may be in b, by what
// none of it is without: most strings of an event have none of that.
func suspicious(b []byte) bool {
	return bytes.IndexByte(b, '=') >= 0 || // a parameter
		bytes.IndexByte(b, ' ') >= 0 || // a bearer token, and PEM's first line
		bytes.IndexByte(b, '.') >= 0 && bytes.Contains(b, jwtBegin) ||
		bytes.Contains(b, pemInBase64)
}

// cut replaces what find finds. find returns the bounds of the first secret,
// and a negative start when there is none.
func cut(b []byte, find func([]byte) (int, int)) ([]byte, bool) {
	from, to := find(b)
	if from < 0 {
		return b, false
	}
	out := make([]byte, 0, len(b))
	for from >= 0 {
		out = append(out, b[:from]...)
		out = append(out, Stripped...)
		b = b[to:]
		from, to = find(b)
	}
	return append(out, b...), true
}

var (
	pemBegin    = []byte("-----BEGIN ")
	pemPrivate  = []byte("PRIVATE KEY")
	pemEnd      = []byte("-----END ")
	pemDashes   = []byte("-----")
	pemInBase64 = []byte("LS0tLS1CRUdJTi") // "-----BEGIN"
	jwtBegin    = []byte("eyJ")            // {"
)

// pemLabel is how many bytes after its begin a PEM block's label must end.
const pemLabel = 64

func findPEM(b []byte) (from, to int) {
	for at := 0; ; {
		i := bytes.Index(b[at:], pemBegin)
		if i < 0 {
			return -1, 0
		}
		i += at
		at = i + len(pemBegin)
		if !bytes.Contains(b[at:min(len(b), at+pemLabel)], pemPrivate) {
			continue
		}
		end := bytes.Index(b[at:], pemEnd)
		if end < 0 {
			return i, len(b)
		}
		end += at + len(pemEnd)
		if dashes := bytes.Index(b[end:min(len(b), end+pemLabel)], pemDashes); dashes >= 0 {
			end += dashes + len(pemDashes)
		}
		return i, end
	}
}

func findBase64PEM(b []byte) (from, to int) {
	for at := 0; ; {
		i := bytes.Index(b[at:], pemInBase64)
		if i < 0 {
			return -1, 0
		}
		i += at
		end := i + span(b[i:], base64Char)
		var head [48]byte
		n, _ := base64.StdEncoding.Decode(head[:], b[i:i+min(64, (end-i)/4*4)])
		if bytes.Contains(head[:n], pemPrivate) {
			return i, end
		}
		at = end
	}
}

// findJWT finds three parts (five when encrypted, RFC 7516) of base64url, the
// first of which begins as JSON does. Each byte is looked at once.
func findJWT(b []byte) (from, to int) {
	for at := 0; ; {
		i := bytes.Index(b[at:], jwtBegin)
		if i < 0 {
			return -1, 0
		}
		i += at
		end := i + span(b[i:], base64URLChar)
		first, parts := end-i, 1
		for ; parts < 5 && end < len(b) && b[end] == '.'; parts++ {
			end += 1 + span(b[end+1:], base64URLChar)
		}
		if first >= 10 && parts >= 3 && end-i >= 20 {
			return i, end
		}
		at = end
	}
}

// findBearer finds "Bearer" in any case and what follows it, when that looks
// like a token and not like the next word of a sentence.
func findBearer(b []byte) (from, to int) {
	const scheme = len("Bearer")
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], ' ')
		if i < 0 {
			return -1, 0
		}
		i += at
		at = i + 1
		if i < scheme || !bytes.EqualFold(b[i-scheme:i], []byte("Bearer")) {
			continue
		}
		n := span(b[at:], tokenChar)
		token := b[at : at+n]
		if n >= 20 || n >= 8 && bytes.ContainsAny(token, "0123456789") {
			return at, at + n
		}
	}
}

// longestParameter is the length of the longest name isSecretParameter knows.
const longestParameter = 21

// findParameter finds the value of name=value where the name is a secret's.
func findParameter(b []byte) (from, to int) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '=')
		if i < 0 {
			return -1, 0
		}
		i += at
		start := i
		for start > 0 && i-start <= longestParameter && tokenNameChar(b[start-1]) {
			start--
		}
		at = i + 1
		if !isSecretParameter(b[start:i]) {
			continue
		}
		n := span(b[at:], valueChar)
		if value := b[at : at+n]; n > 0 && string(value) != Stripped {
			return at, at + n
		}
		at += n
	}
}

func isSecretParameter(name []byte) bool {
	for len(name) > 0 && name[0] == '-' { // a command line's --password=
		name = name[1:]
	}
	if len(name) < 3 || len(name) > longestParameter {
		return false
	}
	var lower [longestParameter]byte
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "sig", "x-amz-signature", "x-amz-security-token", "x-goog-signature",
		"accountkey", "sharedaccesskey", "sharedaccesssignature",
		"access_token", "id_token", "refresh_token", "client_secret", "api_key", "apikey",
		"password", "passwd", "pwd":
		return true
	}
	return false
}

func span(b []byte, in func(byte) bool) int {
	for i, c := range b {
		if !in(c) {
			return i
		}
	}
	return len(b)
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func base64Char(c byte) bool    { return alphanumeric(c) || c == '+' || c == '/' || c == '=' }
func base64URLChar(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' }
func tokenNameChar(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' }

// tokenChar is the alphabet of bearer tokens (RFC 6750, section 2.1).
func tokenChar(c byte) bool {
	return alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~' || c == '+' || c == '/' || c == '='
}

func valueChar(c byte) bool {
	return c > ' ' && c != '&' && c != ';' && c != ',' && c != '"' && c != '\'' && c != '<' && c != '>' && c != '\\'
}
