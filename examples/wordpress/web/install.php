<?php
// Makes the site's tables and its administrator, once; says what it did.
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = parse_url(getenv('WORDPRESS_URL'), PHP_URL_HOST);
require '/usr/share/wordpress/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';

if (is_blog_installed()) {
    echo "the site is there already\n";
    exit;
}
add_filter('pre_wp_mail', '__return_true'); // there is no mail server to tell
$admin = getenv('WORDPRESS_ADMIN');
wp_install(getenv('WORDPRESS_TITLE'), $admin, "$admin@example.invalid", true, '', from_file('WORDPRESS_ADMIN_PASSWORD_FILE'));
update_option('permalink_structure', '/%postname%/');
echo "the site is made; its administrator is $admin\n";
