"""One resumable run store for every command that restores images: what is finished is never made twice."""
