# jwksd, a replica that signs and rotates, with the engines "secret" (KV
# version 2) and "transit", and the path "jwksd". Each capability is needed: a
# test takes them away one by one.

# State documents: public data, replaced by check-and-set, never deleted.
path "secret/data/jwksd/state/*" {
  capabilities = ["read", "update"]
}

# Their settings (cas_required), and the list of keysets. The settings come
# before the first version, which then counts as an update.
path "secret/metadata/jwksd/state/*" {
  capabilities = ["create", "update", "list"]
}

# The newest changes.
path "secret/data/jwksd/head" {
  capabilities = ["read", "update"]
}
path "secret/metadata/jwksd/head" {
  capabilities = ["create", "update"]
}

# Private keys: created and read, never replaced.
path "secret/data/jwksd/keys/*" {
  capabilities = ["create", "read"]
}

# Destroying them for good, and finding those that nothing names.
path "secret/metadata/jwksd/keys/*" {
  capabilities = ["read", "delete", "list"]
}

# What the replicas report about themselves; the reports of those that are gone
# are deleted.
path "secret/data/jwksd/replicas/*" {
  capabilities = ["create", "read", "update"]
}
path "secret/metadata/jwksd/replicas/*" {
  capabilities = ["delete", "list"]
}

# Custody "transit" only. Give jwksd a transit mount of its own.
path "transit/keys" {
  capabilities = ["list"]
}
path "transit/keys/*" {
  capabilities = ["read", "update", "delete"]
}
path "transit/sign/*" {
  capabilities = ["update"]
}
