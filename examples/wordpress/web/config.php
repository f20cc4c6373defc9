<?php
// Debian's wp-config.php includes this file for any host name. All that differs between places comes from the environment.
function from_file(string $name): string
{
    $path = getenv($name);
    if ($path === false || !is_readable($path)) {
        error_log("$name does not name a readable file");
        http_response_code(500);
        exit(1);
    }
    return trim(file_get_contents($path));
}

define('DB_NAME', getenv('WORDPRESS_DB_NAME'));
define('DB_USER', getenv('WORDPRESS_DB_USER'));
define('DB_PASSWORD', from_file('WORDPRESS_DB_PASSWORD_FILE'));
define('DB_HOST', getenv('WORDPRESS_DB_HOST'));
define('DB_CHARSET', 'utf8mb4');
define('WP_HOME', getenv('WORDPRESS_URL'));
define('WP_SITEURL', getenv('WORDPRESS_URL'));
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
// Debian's packages bring updates; the site needs nothing from outside.
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISALLOW_FILE_MODS', true);

// Every copy of the site must agree on these, so they are derived from a secret that all copies share.
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $use) {
    define($use, hash_hmac('sha256', $use, DB_PASSWORD));
}
