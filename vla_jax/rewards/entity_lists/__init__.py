"""Names of objects as data; `README.txt` says where they come from and under which licences."""
