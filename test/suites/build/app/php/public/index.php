<?php
$db = new PDO('sqlite:/site/site.db');
echo 'page ', $db->query('select text from page')->fetchColumn(), "\n";
