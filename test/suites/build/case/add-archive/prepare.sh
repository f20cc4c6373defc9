mkdir -p t/d && echo x > t/d/x && ln -s x t/d/l && chmod 2750 t/d
tar --owner=11 --group=12 --numeric-owner --mtime=@1700000000 -C t -czf tree.tar.gz . && tar --owner=0 --group=0 --numeric-owner -C t -cf tree.tar d
rm -rf t; gzip -kn a.txt
