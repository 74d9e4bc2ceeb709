#!/bin/sh
# The ACLs of the operator, and no more. Written by `python -m monitoring.rights`.
#
#   PRINCIPAL=User:bidden-operator BOOTSTRAP=kafka:9092 deploy/acls/operator.sh
#
# PREFIX and GROUP are BIDDEN_TOPIC_PREFIX and BIDDEN_GROUP, CONFIG the file of an administrator's client.
set -eu
PREFIX=${PREFIX:-bidden} GROUP=${GROUP:-bidden-workers}

allow() {
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$BOOTSTRAP" ${CONFIG:+--command-config "$CONFIG"} \
        --add --force --allow-principal "$PRINCIPAL" "$@"
}

allow --operation Read --topic "$PREFIX.invitations.v1"
allow --operation Write --topic "$PREFIX.invitations.v1"
allow --operation DescribeConfigs --topic "$PREFIX.invitations.v1"
allow --operation Read --group "$GROUP"
allow --operation Read --topic "$PREFIX.invitations.dlq.v1"
allow --operation DescribeConfigs --topic "$PREFIX.invitations.dlq.v1"
allow --operation Describe --group "$GROUP-dlq"
allow --operation Read --topic "$PREFIX.outcomes.v1"
allow --operation Read --topic "$PREFIX.claims.v1"
allow --operation Describe --group "$GROUP-ledger"
allow --operation DescribeConfigs --cluster
