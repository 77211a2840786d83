;;; fimble-mirror.el --- The server's copy of a buffer  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Edits are noted as they happen and sent before the next question.  The server counts in Unicode characters as Emacs
;; does (utf-32), so what it can't read is replaced character by character.

;;; Code:

(require 'fimble-client)
(require 'url-util)

(defconst fimble--most-changes 500
  "After so many edits the whole text is sent instead.")
(defconst fimble--unfit "[^\0-\14\16-\uD7FF\uE000-\U0010FFFF]"
  "What the protocol can't carry, and CR, which it takes for a line break.")

(defvar fimble--buffers 0
  "How many buffers without a file have been opened.")

(defvar-local fimble--opened nil
  "The connection on which the buffer is open.")
(defvar-local fimble--uri nil
  "The buffer's name on it.")
(defvar-local fimble--version 0
  "The version of the text that was sent last.")
(defvar-local fimble--changes nil
  "Edits that were not sent yet, the newest first.")
(defvar-local fimble--whole nil
  "Non-nil if those do not tell everything: the whole text is to be sent.")
(defvar-local fimble--size 0
  "The buffer's size after the last edit; another betrays one without hooks.")
(defvar-local fimble--about nil
  "The edit that is about to happen: its region and the positions of its ends.")

(defun fimble--position (&optional place)
  "PLACE, or point, in the terms of the protocol."
  (save-excursion
    (save-restriction
      (widen)
      (when place (goto-char place))
      (let ((place (point)))
        (forward-line 0)
        (list :line (1- (line-number-at-pos nil t)) :character (- place (point)))))))

(defun fimble--text (start end)
  "The text from START to END, fit for the protocol, with as many characters."
  (let ((text (buffer-substring-no-properties start end)))
    (if (string-match-p fimble--unfit text)
        (save-match-data
          (replace-regexp-in-string fimble--unfit (lambda (one) (if (equal one "\r") " " "\uFFFD")) text t t))
      text)))

(defun fimble--before-change (start end)
  "Note where the text from START to END stands, which is about to change."
  (when (and fimble--opened (not fimble--whole))
    (if (or (/= (buffer-size) fimble--size) (nthcdr fimble--most-changes fimble--changes))
        (setq fimble--whole t fimble--changes nil)
      (setq fimble--about (list start end (fimble--position start) (fimble--position end))))))

(defun fimble--after-change (start end length)
  "Note that START to END is in place of LENGTH characters."
  (when (and fimble--opened (not fimble--whole))
    (pcase fimble--about
      ;; Some commands announce more than they then change.
      (`(,(pred (= start)) ,(pred (= (+ start length))) ,from ,to)
       (push (list :range (list :start from :end to)
                   :text (save-restriction (widen) (fimble--text start end)))
             fimble--changes))
      (_ (setq fimble--whole t fimble--changes nil)))
    (setq fimble--about nil fimble--size (buffer-size))))

(defun fimble--make-uri ()
  "A name for the buffer that no other one has."
  (if (and buffer-file-name (not (file-remote-p buffer-file-name)))
      (concat (if (string-prefix-p "/" buffer-file-name) "file://" "file:///")
              (url-hexify-string (encode-coding-string buffer-file-name 'utf-8-emacs) url-path-allowed-chars))
    (format "untitled:%d/%s" (cl-incf fimble--buffers)
            (url-hexify-string (encode-coding-string (buffer-name) 'utf-8-emacs)))))

(defun fimble--language ()
  "The buffer's language: its major mode without \"-mode\" and \"-ts\"."
  (string-remove-suffix "-ts" (string-remove-suffix "-mode" (symbol-name major-mode))))

(defun fimble--all ()
  "The buffer's whole text."
  (save-restriction (widen) (fimble--text (point-min) (point-max))))

(defun fimble--sync ()
  "Send what has changed, so that the server's text is the buffer's.
Return nil if there is no server to send it to."
  (when (fimble--serving-p)
    (cond
     ((not (eq fimble--opened fimble--connection))
      (setq fimble--opened fimble--connection fimble--uri (fimble--make-uri) fimble--version 0)
      (fimble--notify :textDocument/didOpen
                      (list :textDocument (list :uri fimble--uri :languageId (fimble--language)
                                                :version 0 :text (fimble--all)))))
     ((or fimble--whole fimble--changes (/= (buffer-size) fimble--size))
      (let ((changes (if (or fimble--whole (/= (buffer-size) fimble--size))
                         (list (list :text (fimble--all)))
                       (nreverse fimble--changes))))
        (fimble--notify :textDocument/didChange
                        (list :textDocument (list :uri fimble--uri :version (cl-incf fimble--version))
                              :contentChanges (vconcat changes))))))
    (setq fimble--changes nil fimble--whole nil fimble--about nil fimble--size (buffer-size))
    t))

(defun fimble--close ()
  "Tell the server that the buffer is no longer its business."
  (when (and fimble--opened (eq fimble--opened fimble--connection) (fimble--serving-p))
    (fimble--notify :textDocument/didClose (list :textDocument (list :uri fimble--uri))))
  (setq fimble--opened nil fimble--changes nil fimble--whole nil))

(defun fimble--where ()
  "The cursor's place as requests name it."
  (list :textDocument (list :uri fimble--uri) :position (fimble--position)))

(define-minor-mode fimble--mirror-mode
  "Keep the server's copy of the buffer."
  :interactive nil
  (if fimble--mirror-mode
      (progn
        (add-hook 'before-change-functions #'fimble--before-change -90 t)
        (add-hook 'after-change-functions #'fimble--after-change -90 t)
        (add-hook 'after-set-visited-file-name-hook #'fimble--close nil t)
        (add-hook 'change-major-mode-hook #'fimble--close nil t)
        (add-hook 'kill-buffer-hook #'fimble--close nil t))
    (fimble--close)
    (remove-hook 'before-change-functions #'fimble--before-change t)
    (remove-hook 'after-change-functions #'fimble--after-change t)
    (remove-hook 'after-set-visited-file-name-hook #'fimble--close t)
    (remove-hook 'change-major-mode-hook #'fimble--close t)
    (remove-hook 'kill-buffer-hook #'fimble--close t)))

(provide 'fimble-mirror)
;;; fimble-mirror.el ends here
