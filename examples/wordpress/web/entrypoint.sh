#!/bin/sh
# The site's files and tables are there before the first request is answered.
set -eu
# A volume of Docker's starts with the image's themes and plugins; a claim of a cluster starts empty.
[ -e /var/lib/wordpress/wp-content/themes ] || cp -a /usr/local/share/wordpress/content/. /var/lib/wordpress/wp-content/
php /usr/local/share/wordpress/install.php
# A pid file of a container that was killed would keep Apache from starting.
rm -f /run/apache2/apache2.pid
set +u # envvars reads variables that may not be set
. /etc/apache2/envvars
exec "$@"
