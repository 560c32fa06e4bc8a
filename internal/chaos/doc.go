// Package chaos holds a test that breaks everything around three daemons that
// share one Vault cluster, while verifiers outside watch. It is a module of its
// own, so that the proxy that it breaks connections with is no dependency of
// the product.
package chaos
