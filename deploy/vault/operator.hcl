# A person who looks after jwksd in Vault itself, when jwksd cannot. Private
# keys can be listed and destroyed, not read.

# Look at state documents, and bring back an older version:
#   vault kv rollback -mount=secret -version=N jwksd/state/<keyset>
path "secret/data/jwksd/state/*" {
  capabilities = ["read", "update"]
}

# Bring back what was deleted by mistake:
#   vault kv undelete -mount=secret -versions=N jwksd/state/<keyset>
path "secret/undelete/jwksd/state/*" {
  capabilities = ["update"]
}
path "secret/metadata/jwksd/state/*" {
  capabilities = ["read", "list"]
}

# The head is made anew when it is deleted:
#   vault kv metadata delete -mount=secret jwksd/head
path "secret/data/jwksd/head" {
  capabilities = ["read"]
}
path "secret/metadata/jwksd/head" {
  capabilities = ["delete"]
}

# See and destroy private keys:
#   vault kv metadata delete -mount=secret jwksd/keys/<keyset>/<kid>
path "secret/metadata/jwksd/keys/*" {
  capabilities = ["read", "delete", "list"]
}

path "secret/data/jwksd/replicas/*" {
  capabilities = ["read"]
}
path "secret/metadata/jwksd/replicas/*" {
  capabilities = ["delete", "list"]
}

# Custody "transit" only: the same for the keys that sign in Vault.
path "transit/keys" {
  capabilities = ["list"]
}
path "transit/keys/*" {
  capabilities = ["read", "update", "delete"]
}
