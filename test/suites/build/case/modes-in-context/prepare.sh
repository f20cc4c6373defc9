chmod 755 m/exec; chmod 700 m/private; chmod 400 m/private/key; mkdir -p m/empty; chmod 1777 m/empty
