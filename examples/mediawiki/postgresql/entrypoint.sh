#!/bin/sh
# Makes the cluster on the first start, then becomes the server as user postgres. initdb into a directory beside and a rename:
# a first start that was killed half-way is begun anew.
set -eu

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  made="$PGDATA.made"
  rm -rf "$made"
  mkdir -p "$(dirname "$PGDATA")"
  chown postgres:postgres "$(dirname "$PGDATA")"
  printf '%s' "${POSTGRES_PASSWORD:?}" > /run/pgpass
  chown postgres /run/pgpass
  as_postgres initdb --pgdata="$made" --username=postgres --pwfile=/run/pgpass --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 > /dev/null
  rm /run/pgpass
  echo 'host all all all scram-sha-256' >> "$made/pg_hba.conf"
  as_postgres postgres --single -D "$made" postgres > /dev/null <<SQL
CREATE ROLE "${POSTGRES_USER:?}" LOGIN PASSWORD '$POSTGRES_PASSWORD'
CREATE DATABASE "${POSTGRES_DB:?}" OWNER "$POSTGRES_USER"
SQL
  sync
  mv "$made" "$PGDATA"
fi

mkdir -p /run/postgresql
chown postgres:postgres /run/postgresql
case "$1" in
  postgres) exec setpriv --reuid=postgres --regid=postgres --init-groups "$@" ;;
  *) exec "$@" ;;
esac
