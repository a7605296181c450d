"""The chat in the browser: Gradio, and nothing but the assistant's protocol behind it."""
