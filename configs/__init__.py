"""The settings of the tasks and priors, as YAML; `pag_inverse.config` reads them."""
