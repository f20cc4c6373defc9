#!/bin/sh
# Makes the data directory on the first start, then becomes the server. A first start that was killed half-way is begun anew:
# the directory counts as made when its marker is there.
set -eu

data=/var/lib/mysql
marker=$data/.ready

if [ ! -e "$marker" ]; then
  password=$(cat "${MARIADB_PASSWORD_FILE:?names the file with the password}")
  find "$data" -mindepth 1 -delete
  chown mysql:mysql "$data"
  mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=socket --skip-test-db > /dev/null
  # --bootstrap reads one statement a line, without a server and without the network. It begins with no privileges loaded.
  mariadbd --user=mysql --bootstrap <<SQL
FLUSH PRIVILEGES;
CREATE DATABASE IF NOT EXISTS \`${MARIADB_DATABASE:?}\` CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS \`${MARIADB_USER:?}\`@\`%\` IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON \`$MARIADB_DATABASE\`.* TO \`$MARIADB_USER\`@\`%\`;
SQL
  sync
  touch "$marker"
fi

exec "$@"
