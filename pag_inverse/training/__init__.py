"""Training of small priors: their networks, crops, objectives, and a loop that resumes exactly."""
