#!/bin/sh
# The site's tables are there before the first request is answered.
set -eu
php /usr/local/share/wordpress/install.php
# A pid file of a container that was killed would keep Apache from starting.
rm -f /run/apache2/apache2.pid
set +u # envvars reads variables that may not be set
. /etc/apache2/envvars
exec "$@"
