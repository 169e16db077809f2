#!/usr/bin/env bash
# Makes the consortium's own authority (once) and the SuperLink's certificate.
# Usage: deploy/make_certificates.sh FOLDER HOST_OR_IP...   (this machine's loopback is added)
# ca.crt goes to every node and to whoever submits runs; ca.key and superlink.key go nowhere.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 FOLDER HOST_OR_IP...   (the names under which nodes reach the SuperLink)" >&2
  exit 2
fi
folder=$1; shift
umask 077
mkdir -p "$folder"
names=""
for host in "$@" localhost 127.0.0.1; do
  case "$host" in
    *:*) names="$names,IP:$host" ;;
    *[!0-9.]*) names="$names,DNS:$host" ;;
    *) names="$names,IP:$host" ;;
  esac
done
if [ ! -f "$folder/ca.key" ]; then
  openssl ecparam -name secp384r1 -genkey -noout -out "$folder/ca.key"
  openssl req -x509 -new -sha384 -days 1825 -key "$folder/ca.key" -out "$folder/ca.crt" \
    -subj "/CN=Consortium federation authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
fi
openssl ecparam -name secp384r1 -genkey -noout -out "$folder/superlink.key"
openssl req -new -sha384 -key "$folder/superlink.key" -subj "/CN=SuperLink" -out "$folder/superlink.csr"
openssl x509 -req -sha384 -days 397 -in "$folder/superlink.csr" -out "$folder/superlink.pem" \
  -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -extfile <(cat <<EOF
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=${names#,}
EOF
)
rm "$folder/superlink.csr"
chmod 644 "$folder/ca.crt" "$folder/superlink.pem"
echo "wrote $folder/ca.crt (for everyone), superlink.pem and superlink.key (for the SuperLink)"
