#!/bin/sh
# The ACLs of `bidden migrate`, and no more. Written by `python -m monitoring.rights`.
#
#   PRINCIPAL=User:bidden-migrate BOOTSTRAP=kafka:9092 deploy/acls/migrate.sh
#
# PREFIX and GROUP are BIDDEN_TOPIC_PREFIX and BIDDEN_GROUP, CONFIG the file of an administrator's client.
set -eu
PREFIX=${PREFIX:-bidden} GROUP=${GROUP:-bidden-workers}

allow() {
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$BOOTSTRAP" ${CONFIG:+--command-config "$CONFIG"} \
        --add --force --allow-principal "$PRINCIPAL" "$@"
}

allow --operation Create --topic "$PREFIX.invitations.v1"
allow --operation Describe --topic "$PREFIX.invitations.v1"
allow --operation Create --topic "$PREFIX.invitations.dlq.v1"
allow --operation Describe --topic "$PREFIX.invitations.dlq.v1"
allow --operation Create --topic "$PREFIX.outcomes.v1"
allow --operation Describe --topic "$PREFIX.outcomes.v1"
allow --operation Create --topic "$PREFIX.claims.v1"
allow --operation Describe --topic "$PREFIX.claims.v1"
