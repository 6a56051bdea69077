"""ReFrame's configuration of a machine without a scheduler: ranks by mpirun."""
site_configuration = {
    "systems": [{
        "name": "workstation", "descr": "one machine", "hostnames": [".*"],
        "partitions": [{"name": "here", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"], "max_jobs": 1}],
    }],
    "environments": [{"name": "builtin"}],
}
