package baseline

import "net/netip"

// addressesKnown is how many addresses are remembered with their networks.
const addressesKnown = 1024

// place is whence an activity came: an IP address and its network (/24, /64), or
// a system's word for itself, which has a tag only.
type place struct {
	address, network [16]byte // as netip.Addr.As16
	tag              uint32   // of the network, or of the word
	ip, v4           bool
}

type places struct {
	raw  [addressesKnown]string
	read [addressesKnown]place
}

// of returns the place and whether there is one.
func (c *places) of(raw string, seed uint64) (place, bool) {
	if raw == "" {
		return place{}, false
	}
	if len(raw) > 64 { // no IP address with a zone is longer
		return place{tag: tag(hash(seed, raw))}, true
	}
	slot := hash(seed, raw) % addressesKnown
	if c.raw[slot] != raw {
		c.raw[slot], c.read[slot] = raw, readPlace(raw, seed)
	}
	return c.read[slot], true
}

func readPlace(raw string, seed uint64) place {
	ip, err := netip.ParseAddr(raw)
	if err != nil {
		if port, err := netip.ParseAddrPort(raw); err == nil {
			ip = port.Addr()
		} else {
			return place{tag: tag(hash(seed, raw))}
		}
	}
	ip = ip.Unmap().WithZone("")
	p := place{address: ip.As16(), ip: true, v4: ip.Is4()}
	p.network = p.address
	kept := 8
	if p.v4 {
		kept = 15
	}
	clear(p.network[kept:])
	p.tag = tag(hash(seed, string(p.network[:])))
	return p
}

// where writes a stored address, or "" for none.
func where(address [16]byte, network bool) string {
	if address == ([16]byte{}) {
		return ""
	}
	ip := netip.AddrFrom16(address).Unmap()
	switch {
	case !network:
		return ip.String()
	case ip.Is4():
		return netip.PrefixFrom(ip, 24).String()
	}
	return netip.PrefixFrom(ip, 64).String()
}

func isV4(address [16]byte) bool { return netip.AddrFrom16(address).Is4In6() }
