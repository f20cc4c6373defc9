mkdir -p odd/.hidden
echo 1 > 'odd/sp ace'; echo 2 > odd/ünïcödé; echo 3 > "odd/quote'\""; echo 4 > odd/.hidden/.x; echo 5 > odd/-dash; printf 6 > "$(printf 'odd/new\nline')"
