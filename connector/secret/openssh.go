package secret

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
)

var errOpenSSH = errors.New("no OpenSSH private key that can be read")

// openSSHKey reads algorithm and size of a private key in OpenSSH's format
// (https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.key). Its public half is
// never encrypted, so that an encrypted key is described as well.
func openSSHKey(data []byte) (PrivateKey, error) {
	rest, ok := bytes.CutPrefix(data, []byte("openssh-key-v1\x00"))
	if !ok {
		return PrivateKey{}, errOpenSSH
	}
	cipher, rest, ok := sshString(rest)
	if !ok {
		return PrivateKey{}, errOpenSSH
	}
	if _, rest, ok = sshString(rest); !ok { // key derivation
		return PrivateKey{}, errOpenSSH
	}
	if _, rest, ok = sshString(rest); !ok { // its options
		return PrivateKey{}, errOpenSSH
	}
	if len(rest) < 4 || binary.BigEndian.Uint32(rest) < 1 {
		return PrivateKey{}, errOpenSSH
	}
	public, _, ok := sshString(rest[4:])
	if !ok {
		return PrivateKey{}, errOpenSSH
	}
	kind, public, ok := sshString(public)
	if !ok {
		return PrivateKey{}, errOpenSSH
	}
	key := PrivateKey{OpenSSH: true, Encrypted: string(cipher) != "none"}
	switch name := strings.TrimPrefix(string(kind), "sk-"); {
	case strings.HasPrefix(name, "ssh-ed25519"):
		key.Algorithm, key.KeyBits = "Ed25519", 256
	case strings.HasPrefix(name, "ecdsa-sha2-nistp256"):
		key.Algorithm, key.KeyBits = "ECDSA", 256
	case name == "ecdsa-sha2-nistp384":
		key.Algorithm, key.KeyBits = "ECDSA", 384
	case name == "ecdsa-sha2-nistp521":
		key.Algorithm, key.KeyBits = "ECDSA", 521
	case name == "ssh-rsa":
		key.Algorithm = "RSA"
		if _, public, ok = sshString(public); ok { // exponent
			if n, _, ok := sshString(public); ok && len(n) <= 4096 {
				key.KeyBits = new(big.Int).SetBytes(n).BitLen()
			}
		}
	case name == "ssh-dss":
		key.Algorithm = "DSA"
		if p, _, ok := sshString(public); ok && len(p) <= 4096 {
			key.KeyBits = new(big.Int).SetBytes(p).BitLen()
		}
	}
	return key, nil
}

// sshString takes a length and so many bytes off the front (RFC 4251, section 5).
func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}
