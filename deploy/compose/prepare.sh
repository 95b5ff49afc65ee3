#!/bin/sh
# usage: prepare.sh [FOLDER]  (of the volumes; /v in the container). Once before all others, as root; any number of times.
# Makes the CA and the certificates where they are missing or end soon, and gives each volume to who writes it.
set -eu
v=${1:-/v}
ours=10001:10001
nobody=65534:65534 # Prometheus

export TLS_DIR="$v/tls"
mkdir -p "$v/tls"
chmod 755 "$v/tls"
packtwin-cloud device ca

# What the broker needs: its own key, not the CA's. It starts with nobody in its list; the gateway fills that.
mkdir -p "$v/mqtt-tls" "$v/mqtt-access"
cp "$v/tls/ca.pem" "$v/tls/mqtt.pem" "$v/tls/mqtt.key" "$v/mqtt-tls/"
chmod 600 "$v/mqtt-tls/mqtt.key"
cp "$v/acl" "$v/mqtt-access/acl"
touch "$v/mqtt-access/passwords"
chmod 600 "$v/mqtt-access/acl" "$v/mqtt-access/passwords"

# What Prometheus needs to ask the API.
mkdir -p "$v/prometheus-access"
cp "$v/tls/ca.pem" "$v/prometheus-access/ca.pem"
printf '%s' "$API_TOKEN" >"$v/prometheus-access/api-token"
chmod 400 "$v/prometheus-access/api-token"
chown -R $nobody "$v/prometheus-access"

for volume in tls releases keys models mqtt-tls mqtt-access mosquitto-data mlflow-data demo-data; do
    mkdir -p "$v/$volume"
    chown -R $ours "$v/$volume"
done
chmod 700 "$v/keys"
