"""A page in the browser: two pictures, the options as sliders, beside SIFT and ORB.

analysis.py computes, on pictures.py; app.py shows it through Gradio (extra ``[viewer]``).
"""
