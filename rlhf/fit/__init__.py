"""Training of the embedded policy: a file a stage, `python app.py train STAGE --data FOLDER`."""
