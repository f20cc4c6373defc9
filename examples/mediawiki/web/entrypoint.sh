#!/bin/sh
# LocalSettings.php comes from outside; what Apache left behind when it was killed would keep it from starting.
set -eu
ln -sf /etc/wiki/LocalSettings.php /etc/mediawiki/LocalSettings.php
rm -f /run/apache2/apache2.pid
set +u # envvars reads variables that may not be set
. /etc/apache2/envvars
exec "$@"
