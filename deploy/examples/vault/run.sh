#!/usr/bin/env bash
# Starts a Vault in development mode and a jwksd that keeps its keys in it, both
# on the loopback interface, until Ctrl-C. Everything is gone afterwards.
#
# Ports: VAULT_PORT (and the next one, too), PUBLIC_PORT, API_PORT, OPS_PORT.
# Programs: VAULT_BIN and JWKSD_BIN; else those on the PATH or of this
# repository, built first if need be.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../../.." && pwd)
vault_port=${VAULT_PORT:-8200}
umask 077 # credentials are for this user only
dir=$(mktemp -d "${TMPDIR:-/tmp}/jwksd-vault.XXXXXX")
vault_pid='' jwksd_pid=''

stop() { # the daemon first, while Vault still answers
  for pid in $jwksd_pid $vault_pid; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP

say() { echo "run.sh: $*" >&2; }
die() { say "$*"; exit 1; }

vault_bin() {
  if [[ -n ${VAULT_BIN:-} ]]; then echo "$VAULT_BIN"
  elif command -v vault; then :
  else
    local bin=$repo/.cache/bin/vault
    if [[ ! -x $bin ]]; then
      say "building Vault, once; this takes some minutes"
      (umask 022 && mkdir -p "${bin%/*}" && cd "$repo/tools/vault" && go build -tags minimal -o "$bin" github.com/hashicorp/vault) >&2
    fi
    echo "$bin"
  fi
}

jwksd_bin() {
  if [[ -n ${JWKSD_BIN:-} ]]; then echo "$JWKSD_BIN"
  else
    (cd "$repo" && go build -o "$dir/jwksd" ./cmd/jwksd) >&2
    echo "$dir/jwksd"
  fi
}

vault=$(vault_bin)
jwksd=$(jwksd_bin)

# The Vault. It writes its root token into its home, and so the commands below
# find it there and none has it in its arguments.
export HOME=$dir VAULT_ADDR=http://127.0.0.1:$vault_port
unset VAULT_TOKEN VAULT_NAMESPACE VAULT_DEV_ROOT_TOKEN_ID VAULT_DEV_LISTEN_ADDRESS VAULT_CACERT VAULT_SKIP_VERIFY
"$vault" server -dev -dev-listen-address="127.0.0.1:$vault_port" >"$dir/vault.log" 2>&1 &
vault_pid=$!
for ((i = 0; ; i++)); do
  kill -0 "$vault_pid" 2>/dev/null || { grep -i error "$dir/vault.log" >&2 || true; die "Vault ended; is port $vault_port in use? choose another: VAULT_PORT=8300 $0"; }
  [[ -s $dir/.vault-token ]] && "$vault" token lookup >/dev/null 2>&1 && break
  ((i < 300)) || die "Vault is not ready after a minute"
  sleep 0.2
done

# The engines, the policies, and a login for the daemon, as deploy/vault says.
{
  mounts=$("$vault" secrets list)
  grep -q '^secret/' <<<"$mounts" || "$vault" secrets enable -path=secret -version=2 kv
  "$vault" secrets enable transit
  for role in signer publisher operator; do
    "$vault" policy write "jwksd-$role" "$repo/deploy/vault/$role.hcl"
  done
  "$vault" auth enable approle
  "$vault" write auth/approle/role/jwksd-signer token_policies=jwksd-signer token_ttl=1h token_max_ttl=24h
} >"$dir/setup.log" 2>&1 || { cat "$dir/setup.log" >&2; die "Vault could not be set up"; }
"$vault" read -field=role_id auth/approle/role/jwksd-signer/role-id >"$dir/role-id"
"$vault" write -f -field=secret_id auth/approle/role/jwksd-signer/secret-id >"$dir/secret-id"

# The daemon.
mkdir "$dir/data"
sed -e "s#127.0.0.1:8200#127.0.0.1:$vault_port#" \
    -e "s#127.0.0.1:8080#127.0.0.1:${PUBLIC_PORT:-8080}#" \
    -e "s#127.0.0.1:8081#127.0.0.1:${API_PORT:-8081}#" \
    -e "s#127.0.0.1:9090#127.0.0.1:${OPS_PORT:-9090}#" "$here/jwksd.yaml" >"$dir/jwksd.yaml"
"$jwksd" serve --config "$dir/jwksd.yaml" &
jwksd_pid=$!
say "in another terminal:"
echo "export JWKSD_DATA_DIR=$dir/data"
echo "export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=\$(cat $dir/.vault-token)"

wait -n "$vault_pid" "$jwksd_pid" || die "one of the two ended; see above"
