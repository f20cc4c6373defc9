ln -sf real.txt dir/to-file; ln -sf /etc/passwd dir/absolute; ln -sf nowhere dir/dangling
