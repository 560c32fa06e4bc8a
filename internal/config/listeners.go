package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

func (r *report) checkListeners(l *Listeners) {
	at := fieldPath{"listeners"}
	taken := map[string]string{}
	for _, one := range []struct{ name, address string }{
		{"public", l.Public.Address}, {"api", l.API.Address}, {"ops", l.Ops.Address},
	} {
		field := at.key(one.name).key("address")
		if one.name == "ops" && one.address == "" {
			if _, present := r.where[at.key("ops").String()]; present {
				r.add(field, "missing: give host:port, as in 127.0.0.1:9090, or remove the block to go without")
			}
			continue
		}
		port, ok := r.checkAddress(field, one.address)
		if other, again := taken[one.address]; ok && again && port != 0 {
			r.add(field, "%s is the address of the %s listener already: give each its own", one.address, other)
		}
		taken[one.address] = one.name
	}
	switch l.Public.ContentType {
	case ContentTypeJWKSet, ContentTypeJSON:
	default:
		r.add(at.key("public").key("content_type"), "%s: choose %s or %s", excerpt(l.Public.ContentType), ContentTypeJWKSet, ContentTypeJSON)
	}
	r.checkTLS(at.key("api"), l.API)
}

// checkAddress takes host:port with a port in digits, so that nothing has to be
// looked up to know what is meant.
func (r *report) checkAddress(at fieldPath, address string) (port uint16, ok bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil || strings.ContainsFunc(host, unprintable) {
		r.add(at, "%s: want host:port, as in 127.0.0.1:8080, [::1]:8080, or :8080 for all interfaces", excerpt(address))
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		r.add(at, "%s: the port must be a number from 0 to 65535, 0 for any that is free", excerpt(address))
		return 0, false
	}
	return uint16(n), true
}

func (r *report) checkTLS(at fieldPath, api APIListener) {
	if api.TLS == nil {
		host, _, err := net.SplitHostPort(api.Address)
		if err == nil && !loopback(host) {
			r.add(at.key("address"), "%s is reachable from other machines, and callers send tokens: add tls: {cert: tls.crt, key: tls.key}, or listen on 127.0.0.1", excerpt(api.Address))
		}
		return
	}
	at = at.key("tls")
	for _, one := range []struct{ name, path, what string }{
		{"cert", api.TLS.Cert, "the certificate's PEM file"}, {"key", api.TLS.Key, "the private key's PEM file"},
	} {
		if one.path == "" {
			r.add(at.key(one.name), "missing: give %s", one.what)
			continue
		}
		r.checkPath(at.key(one.name), one.path)
	}
}

// loopback tells whether a listener on that host hears this machine only.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
