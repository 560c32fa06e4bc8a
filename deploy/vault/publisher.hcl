# jwksd, a replica that only publishes: it never sees a private key, cannot use
# one, and changes nothing but its own report.

path "secret/data/jwksd/state/*" {
  capabilities = ["read"]
}
path "secret/metadata/jwksd/state/*" {
  capabilities = ["list"]
}
path "secret/data/jwksd/head" {
  capabilities = ["read"]
}
path "secret/data/jwksd/replicas/*" {
  capabilities = ["create", "update"]
}
