#!/usr/bin/php
<?php
// Makes the wiki's tables and its administrator, once. Copies of the site that start together agree by a lock in the database.
// The installer wants a place without settings, and writes settings that nobody needs: ours come from the ConfigMap.
function env(string $name): string
{
    $value = getenv($name);
    if ($value === false) {
        fwrite(STDERR, "the variable $name is missing\n");
        exit(1);
    }
    return $value;
}

$where = sprintf('host=%s dbname=%s user=%s password=%s connect_timeout=2', env('DB_HOST'), env('DB_NAME'), env('DB_USER'), env('DB_PASSWORD'));
while (!($database = @pg_connect($where))) {
    echo 'waiting for the database at ', env('DB_HOST'), "\n";
    sleep(1);
}

pg_query($database, 'SELECT pg_advisory_lock(1)'); // held until this process ends
if (pg_fetch_result(pg_query($database, "SELECT to_regclass('mediawiki.site_stats') IS NOT NULL"), 0, 0) === 't') {
    echo "the wiki is there already\n";
    exit;
}

$settings = sys_get_temp_dir() . '/settings-' . getmypid();
mkdir($settings, 0700);
$words = [
    'php', '/usr/share/mediawiki/maintenance/install.php', '--confpath', $settings, '--lang', 'en', '--scriptpath', '',
    '--dbtype', 'postgres', '--dbserver', env('DB_HOST'), '--dbname', env('DB_NAME'),
    '--dbuser', env('DB_USER'), '--dbpass', env('DB_PASSWORD'), '--installdbuser', env('DB_USER'), '--installdbpass', env('DB_PASSWORD'),
    '--server', env('WIKI_URL'), '--pass', env('ADMIN_PASSWORD'), env('WIKI_NAME'), env('ADMIN_NAME'),
];
passthru(implode(' ', array_map('escapeshellarg', $words)), $code);
exit($code);
