// Package vaulttest runs real Vault servers for tests: one node that keeps its
// data in memory, or a cluster of several on disk. The program is $VAULT_BIN,
// else the vault on the PATH, else one that is built from the module in
// tools/vault, once, which takes minutes on a machine that never did it.
//
// A package that uses it calls [Main] from its TestMain, so that its tests
// share one server; each test takes a mount of its own. Servers listen on the
// loopback interface only, are given their secrets through the API, and are
// killed by their own process id; should the test be killed, they die with it
// where the system can do that.
package vaulttest
